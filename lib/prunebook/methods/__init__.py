"""Pruning methods, one file a paper. A method loads when it is first named.

A method is a frozen dataclass: its fields are the user's options, `paper`, `needs_calibration` and
`facets` describe it, and `prune(model, calibration)` prunes in place.
"""

import importlib

from ..experiments.compare import Comparison, compare, sweep
from .prune import Report, prune
from .registry import list_methods

# name -> (module here, class); also read without running it, by what needs the names alone
REGISTRY = {
    "besa": ("besa", "BESA"),
    "bitnet-b158": ("bitnet_b158", "BitNetB158"),
    "compresso": ("compresso", "Compresso"),
    "deeper-layers": ("deeper_layers", "DeeperLayers"),
    "dsnot": ("dsnot", "DSnoT"),
    "gradual-magnitude": ("gradual_magnitude", "GradualMagnitude"),
    "k-prune": ("k_prune", "KPrune"),
    "llm-pruner": ("llm_pruner", "LLMPruner"),
    "llm-surgeon": ("llm_surgeon", "LLMSurgeon"),
    "magnitude": ("magnitude", "Magnitude"),
    "minitron": ("minitron", "Minitron"),
    "owl": ("owl", "OWL"),
    "remove-blocks": ("remove_blocks", "RemoveBlocks"),
    "ria": ("ria", "RIA"),
    "sheared-llama": ("sheared_llama", "ShearedLLaMA"),
    "shortened-llama": ("shortened_llama", "ShortenedLLaMA"),
    "sparsegpt": ("sparsegpt", "SparseGPT"),
    "wanda": ("wanda", "Wanda"),
}

__all__ = [
    "BESA",
    "OWL",
    "REGISTRY",
    "RIA",
    "BitNetB158",
    "Comparison",
    "Compresso",
    "DSnoT",
    "DeeperLayers",
    "GradualMagnitude",
    "KPrune",
    "LLMPruner",
    "LLMSurgeon",
    "Magnitude",
    "Minitron",
    "RemoveBlocks",
    "Report",
    "ShearedLLaMA",
    "ShortenedLLaMA",
    "SparseGPT",
    "Wanda",
    "compare",
    "list_methods",
    "prune",
    "sweep",
]


def __getattr__(name: str):
    for module, class_name in REGISTRY.values():
        if name == class_name:
            return getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

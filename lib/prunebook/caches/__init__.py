"""KV-cache pruning: caches that hold a budget of tokens.

Each is a transformers cache, for plain `model.generate(ids, past_key_values=cache)`. The model
needs no preparation and no hooks, and any number of caches can be alive at once.

A transformers cache is given the new keys and values before attention and never sees the queries,
yet heavy hitters are what the queries look at. So the first cache constructed puts a wrapper around
transformers' `sdpa` attention (attention.py). The key tensor that a cache returns carries its
layer; the wrapper hands the queries of such keys to that layer and passes every other call on
unchanged. Queries arrive as the model made them, after its rotary embedding and norms; to compute
them again would take code for each architecture. A cache whose keys no wrapper receives (`eager`,
flash attention) refuses to go on.

In the prompt phase attention is the model's own. In decoding the layer (layer.py) computes it over
its slots, where it has the weights anyway.
"""

import importlib
from typing import Any

from .. import list_names, load_export
from .baselines import RandomCache, WindowCache
from .quality import Recall, measure, perplexity, recall
from .registry import REGISTRY
from .trace import held_positions

# name -> module of the library that defines it; also read without running it
EXPORTS = {
    "CacheComparison": "experiments.caches",
    "Steps": "experiments.caches",
    "compare_caches": "experiments.caches",
    "time_steps": "experiments.caches",
}
_CLASSES = {class_name: module for module, class_name in REGISTRY.values()}

__all__ = [
    "REGISTRY",
    "RandomCache",
    "Recall",
    "WindowCache",
    "held_positions",
    "measure",
    "perplexity",
    "recall",
    *EXPORTS,
    *_CLASSES,
]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)
    if name == "compare":  # the former name of `compare_caches`
        name = "compare_caches"
    return load_export(__name__, EXPORTS, name)


def __dir__() -> list[str]:
    return list_names(__name__, __all__)

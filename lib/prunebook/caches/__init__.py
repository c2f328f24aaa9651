"""KV-cache pruning: caches that hold a budget of tokens, for plain `model.generate(ids,
past_key_values=cache)`.

A cache is given the new keys and values before attention and never sees the queries, yet heavy
hitters are what the queries look at. So the first cache constructed puts a wrapper before
transformers' `sdpa` attention (attention.py). The key tensor that a cache returns carries its
layer; the wrapper hands the queries of such keys to that layer, and passes every other call on
unchanged. The model needs no preparation and no hooks, any number of caches can be alive at once,
and queries come as the model made them, after its rotary embedding and norms: recomputing them
would need code for each architecture. A cache whose keys no wrapper receives (`eager`, flash
attention) refuses to go on.

In the prompt phase attention is the model's own. In decoding the layer computes it over its slots,
where it has the weights anyway.
"""

from ..experiments.caches import CacheComparison, Steps, compare_caches, time_steps
from .baselines import RandomCache, WindowCache
from .h2o import H2OCache
from .keyformer import KeyformerCache
from .quality import Recall, measure, perplexity, recall
from .trace import held_positions

# name of a paper's cache -> (module here, class); also read without running it
REGISTRY = {
    "h2o": ("h2o", "H2OCache"),
    "keyformer": ("keyformer", "KeyformerCache"),
}

__all__ = [
    "REGISTRY",
    "CacheComparison",
    "H2OCache",
    "KeyformerCache",
    "RandomCache",
    "Recall",
    "Steps",
    "WindowCache",
    "compare",
    "held_positions",
    "measure",
    "perplexity",
    "recall",
    "time_steps",
]

"""Caches to compare with: the newest tokens alone, with sinks, or with a random sample."""

from functools import partial

import torch
from transformers import Cache

from ..kernels.attention.noise import stream_of, uniform
from ..validation import check_whole
from .layer import PrunedLayer
from .policy import CacheBudget, EvictionPolicy


class WindowCache(Cache):
    """Keep the newest tokens ("local" in H2O), and the first few of the text: the attention sinks.

    With sinks these are the tokens that StreamingLLM keeps (Xiao et al., ICLR 2024, arXiv
    2309.17453, section 3.2), but at their original positions, where it counts positions within the
    cache.

    Args:
        budget: as for `H2OCache`.
        sinks: how much of the budget is for the first tokens of the text; StreamingLLM has 4.

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(self, budget: float | int = 0.2, *, sinks: int = 0):
        def initial_score(layer: int, positions: torch.Tensor, kv_heads: int) -> torch.Tensor:
            # Sinks score 1. Of all others, which score 0, the earliest leaves.
            return (positions < sinks).float().expand(-1, kv_heads, -1)

        policy = EvictionPolicy(CacheBudget(budget, 0, sinks), initial_score=initial_score)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, policy))


class RandomCache(Cache):
    """Keep the newest tokens, and at any time a uniform sample of all earlier ones.

    The scores are random; each KV head draws its own.

    Args:
        budget: as for `H2OCache`.
        recent: as for `H2OCache`.
        seed: seed of the sample.

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(self, budget: float | int = 0.2, recent: float | int = 0.5, seed: int = 0):
        check_whole("seed", seed, 0)

        def initial_score(layer: int, positions: torch.Tensor, kv_heads: int) -> torch.Tensor:
            heads = torch.arange(kv_heads, device=positions.device)[:, None]
            return uniform(stream_of(seed, layer), heads, torch.zeros_like(heads), positions)

        policy = EvictionPolicy(CacheBudget(budget, recent), initial_score=initial_score)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, policy))

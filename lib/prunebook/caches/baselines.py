"""What scores are compared with: the newest tokens alone, with the first few, or with a random
sample of the others."""

from functools import partial

import torch
from transformers import Cache

from ..kernels.noise import stream_of, uniform
from ..validation import check_whole
from .layer import PrunedLayer
from .policy import CacheBudget, EvictionPolicy


class WindowCache(Cache):
    """The newest tokens alone ("local" in H2O), or beside the first few, the attention sinks.

    With sinks these are the tokens that StreamingLLM keeps (Xiao et al., ICLR 2024, arXiv
    2309.17453, section 3.2), but at their original positions, where it counts positions within the
    cache.

    Args:
        budget: as for `H2OCache`.
        sinks: of the budget, the first tokens of the text that stay; StreamingLLM has 4.

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(self, budget: float | int = 0.2, *, sinks: int = 0):
        def start(layer: int, positions: torch.Tensor, kv_heads: int) -> torch.Tensor:
            return (positions < sinks).float().expand(-1, kv_heads, -1)

        plan = EvictionPolicy(
            CacheBudget(budget, 0, sinks), start=start
        )  # of equal scores the earliest leaves
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, plan))


class RandomCache(Cache):
    """Scores are random: the newest tokens, and at any time a uniform sample of all earlier ones,
    each KV head its own.

    Args:
        budget, recent: as for `H2OCache`.
        seed: of the sample.

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(self, budget: float | int = 0.2, recent: float | int = 0.5, seed: int = 0):
        check_whole("seed", seed, 0)

        def start(layer: int, positions: torch.Tensor, kv_heads: int) -> torch.Tensor:
            heads = torch.arange(kv_heads, device=positions.device)[:, None]
            return uniform(stream_of(seed, layer), heads, torch.zeros_like(heads), positions)

        plan = EvictionPolicy(CacheBudget(budget, recent), start=start)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, plan))

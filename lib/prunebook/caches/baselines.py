"""What scores are compared with: the newest tokens alone, and the newest with a random sample of the others."""

from functools import partial

import torch
from transformers import Cache

from ..methods.options import check_whole
from .budget import Budget
from .layer import Plan, PrunedLayer
from .noise import uniform


class WindowCache(Cache):
    """The newest tokens alone ("local" in H2O).

    Args:
        budget: as for `H2OCache`.

    Raises:
        UserError: another budget; in use, a model whose attention cannot be pruned.
    """

    def __init__(self, budget: float | int = 0.2):
        plan = Plan(Budget(budget, 1.0))
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, plan))


class RandomCache(Cache):
    """Scores are random: the newest tokens, and at any time a uniform sample of all earlier ones, each KV head its own.

    Args:
        budget, recent: as for `H2OCache`. seed: of the sample.

    Raises:
        UserError: an impossible option; in use, a model whose attention cannot be pruned.
    """

    def __init__(self, budget: float | int = 0.2, recent: float | int = 0.5, seed: int = 0):
        check_whole("seed", seed, 0)

        def start(layer: int, positions: torch.Tensor, kv_heads: int) -> torch.Tensor:
            heads = torch.arange(kv_heads, device=positions.device)[:, None]
            return uniform(seed, layer, heads, torch.zeros_like(heads), positions)

        plan = Plan(Budget(budget, recent), start=start)
        super().__init__(layer_class_to_replicate=partial(PrunedLayer, plan))

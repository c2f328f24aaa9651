"""How much each layer may lose.

An allocation maps the name of every linear inside the decoder blocks to a `Pattern`.
"""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import brentq
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.anatomy import find_blocks
from .patterns import ExactCount, Pattern, count_removed

# `count * rate` in floating point may fall this much short of the whole number that it means.
_ROUNDING = 1e-9


def linear_sizes(model: PreTrainedModel) -> dict[str, int]:
    """Name of each linear inside the decoder blocks -> its number of weights."""
    sizes = {}
    for block in find_blocks(model):
        sizes |= {name: linear.weight.numel() for name, linear in block.linears.items()}
    return sizes


def uniform(model: PreTrainedModel, pattern: Pattern) -> dict[str, Pattern]:
    """The same pattern for every linear."""
    return dict.fromkeys(linear_sizes(model), pattern)


def from_rates(
    model: PreTrainedModel, rates: Mapping[str, float], scope: str = "row"
) -> dict[str, ExactCount]:
    """Exact counts from a sparsity for each linear.

    Together they remove `floor(sum of size * rate)` weights. Each linear loses `floor(size * rate)`
    or one weight more, the largest remainders first.

    Args:
        model: a causal language model with recognisable blocks.
        rates: name of linear -> fraction removed.
        scope: what a weight is compared with: its `row` or its `layer`.

    Raises:
        UserError: a linear without a rate, an unknown one, or a rate outside [0, 1].
    """
    sizes = linear_sizes(model)
    if wrong := sorted(set(sizes) ^ set(rates)):
        raise UserError(
            f"an allocation needs one rate for each linear of the blocks; {wrong[0]} is missing or "
            "unknown"
        )
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise UserError(f"rate {rate!r} of {name} is not allowed; use a number in [0, 1]")
    # The count of the whole model is rounded down once, then shared out among the linears.
    total = sum(sizes.values())
    exact = np.array([rates[name] * size for name, size in sizes.items()])
    counts = largest_remainders(exact, count_removed(total, exact.sum() / total)).tolist()
    return {
        name: ExactCount(count, size, scope)
        for (name, size), count in zip(sizes.items(), counts, strict=True)
    }


def largest_remainders(exact: np.ndarray, total: int) -> np.ndarray:
    """Round numbers to whole ones with a given sum: down, or up for the largest remainders.

    Among equal remainders the lowest index is rounded up first.

    Args:
        exact: the numbers, not negative; they sum to `total` or a fraction more.
        total: the sum of the result.

    Returns:
        int64, of the shape of `exact`.
    """
    counts = np.floor(exact + _ROUNDING).astype(np.int64)
    # The most negative difference belongs to the largest remainder.
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: total - counts.sum()]] += 1
    return counts


def shifted_rates(rates: np.ndarray, share: np.ndarray, mean: float, highest: float) -> np.ndarray:
    """All rates plus one number, clipped to `[0, highest]`, so that their weighted mean is `mean`.

    Args:
        rates: float64 `[n]`.
        share: float64 `[n]`, the weight of each rate in the mean; the weights sum to 1.
        mean: the mean of the result.
        highest: the upper bound of a rate.
    """
    # The shares sum to 1 only up to rounding, and a mean beyond the bound has no solution.
    mean = min(mean, share @ np.full(len(rates), highest))
    # The mean of the clipped rates grows with the shift, so that there is one root.
    shift = brentq(
        lambda t: share @ (rates + t).clip(0, highest) - mean, -rates.max(), 1 - rates.min()
    )
    return (rates + shift).clip(0, highest)

"""How much each layer may lose: an allocation maps the name of every linear inside the blocks to a `Pattern`."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import brentq

from ..errors import UserError
from ..models.anatomy import find_blocks
from .patterns import ExactCount, Pattern, count_removed


def uniform(model, pattern: Pattern) -> dict[str, Pattern]:
    """The same pattern for every linear."""
    return {name: pattern for block in find_blocks(model) for name in block.linears}


def from_rates(model, rates: Mapping[str, float], scope: str = "row") -> dict[str, ExactCount]:
    """Exact budgets from a sparsity for each linear: together they remove `floor(sum size * rate)`
    weights.

    Each linear loses `floor(size * rate)` or one weight more, the largest remainders first.

    Args:
        rates: name of linear -> fraction removed.
        scope: what weights of a linear compete in, `row` or `layer`.

    Raises:
        UserError: a linear without a rate, an unknown one, or a rate outside [0, 1].
    """
    sizes = {
        name: linear.weight.numel()
        for block in find_blocks(model)
        for name, linear in block.linears.items()
    }
    if wrong := sorted(set(sizes) ^ set(rates)):
        raise UserError(
            f"an allocation needs one rate for each linear of the blocks; {wrong[0]} is missing or "
            "unknown"
        )
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise UserError(f"rate {rate!r} of {name} is not allowed; use a number in [0, 1]")
    total = sum(sizes.values())
    exact = np.array([rates[name] * size for name, size in sizes.items()])
    counts = largest_remainders(exact, count_removed(total, exact.sum() / total)).tolist()
    return {
        name: ExactCount(count, size, scope)
        for (name, size), count in zip(sizes.items(), counts, strict=True)
    }


def largest_remainders(exact: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers that sum to `total`: each of `exact` (>= 0, summing to `total` or a fraction
    more) rounded down, or up for the largest remainders, ties lowest index first. int64."""
    counts = np.floor(exact + 1e-9).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def shifted_rates(rates: np.ndarray, share: np.ndarray, mean: float, highest: float) -> np.ndarray:
    """`rates` plus one number, clipped to [0, highest], such that their mean, weighted by `share`,
    is `mean`."""
    mean = min(mean, share @ np.full(len(rates), highest))  # shares add up to 1 only up to rounding
    shift = brentq(
        lambda t: share @ (rates + t).clip(0, highest) - mean, -rates.max(), 1 - rates.min()
    )
    return (rates + shift).clip(0, highest)

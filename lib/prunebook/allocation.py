"""How much each layer may lose: uniform, given rates, or OWL's, which spares blocks with many
outliers.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to
High Sparsity (arXiv 2310.05175); official code luuyin/OWL at dddb7a4. An allocation maps the name
of every linear inside the blocks to a `Pattern`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import brentq

from .blocks import find_blocks, walk, weight_of
from .criteria.wanda import SquaredNorm, wanda_score
from .errors import UserError
from .patterns import Budget, Pattern, count_removed

_HIGHEST = 0.99  # no layer loses more, unless the target is nearly that


def uniform(model, pattern: Pattern) -> dict[str, Pattern]:
    """The same pattern for every linear."""
    return {name: pattern for block in find_blocks(model) for name in block.linears}


def from_rates(model, rates: Mapping[str, float], scope: str = "row") -> dict[str, Budget]:
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
            f"an allocation needs one "
            f"rate for "
            f"each linear "
            f"of the blocks; "
            f"{wrong[0]} "
            f"is missing "
            f"or unknown"
        )
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise UserError(f"rate {rate!r} of {name} is not allowed; use a number in [0, 1]")
    total = sum(sizes.values())
    exact = np.array([rates[name] * size for name, size in sizes.items()])
    counts = largest_remainders(exact, count_removed(total, exact.sum() / total)).tolist()
    return {
        name: Budget(count, size, scope)
        for (name, size), count in zip(sizes.items(), counts, strict=True)
    }


def largest_remainders(exact: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers that sum to `total`: each of `exact` (>= 0, summing to `total` or a fraction
    more) rounded down, or up for the largest remainders, ties lowest index first. int64."""
    counts = np.floor(exact + 1e-9).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def counts_from_rates(rates: np.ndarray, sizes: np.ndarray, removed: int) -> np.ndarray:
    """How many weights go from groups of `sizes` weights, int64, near `rates` of each and `removed`
    of all.

    All rates are shifted by one number, within [0, 1], so that they meet the sum; then rounded by
    largest remainders.

    Raises:
        UserError: more is to be removed than there is.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    if not 0 <= removed <= sizes.sum():
        raise UserError(f"removed {removed} is not allowed for {int(sizes.sum())} weights")
    share = sizes / sizes.sum()
    return largest_remainders(
        sizes * _shifted(np.asarray(rates), share, removed / sizes.sum(), 1.0), removed
    )


def _shifted(rates: np.ndarray, share: np.ndarray, mean: float, highest: float) -> np.ndarray:
    """`rates` plus one number, clipped to [0, highest], such that their mean, weighted by `share`,
    is `mean`."""
    mean = min(mean, share @ np.full(len(rates), highest))  # shares add up to 1 only up to rounding
    shift = brentq(
        lambda t: share @ (rates + t).clip(0, highest) - mean, -rates.max(), 1 - rates.min()
    )
    return (rates + shift).clip(0, highest)


@torch.no_grad()
def outliers(
    model,
    calibration: torch.Tensor,
    multiplier: float = 5.0,
    *,
    by: str = "block",
    precision: str = "exact",
    progress: str | None = None,
    device=None,
) -> dict[str, float]:
    """OWL's layerwise outlier distribution of the dense model: `D`, the percentage of Wanda scores
    that exceed `multiplier` times their mean (section 3; M there).

    Args:
        calibration: int64 `[n, length]`.
        by: mean and count over all linears of a `block` (the paper's) or of one `linear`.

    Returns:
        Name of linear -> D in percent; the linears of a block share it where `by` is `block`.

    Raises:
        UserError: an unknown `by`, or bad calibration tokens.
    """
    if by not in ("block", "linear"):
        raise UserError(f"by {by!r} is unknown; use 'block' or 'linear'")
    found = {}
    for block in walk(model, calibration, precision=precision, progress=progress, device=device):
        scores = {
            name: wanda_score(weight_of(block.linears[name]), statistic.norm())
            for name, statistic in block.collect(SquaredNorm, propagate=True).items()
        }
        for names in [list(scores)] if by == "block" else [[name] for name in scores]:
            size = sum(scores[name].numel() for name in names)
            # The sum in double: rounding must not decide whether a score stands above the
            # threshold.
            threshold = (
                multiplier * sum(scores[name].sum(dtype=torch.float64) for name in names) / size
            )
            above = sum(int((scores[name] > threshold).sum()) for name in names)
            found |= dict.fromkeys(names, 100 * above / size)
    return found


def owl_rates(
    distribution: Sequence[float],
    sparsity: float,
    spread: float = 0.08,
    sizes: Sequence[int] | None = None,
) -> list[float]:
    """OWL's sparsities: the more outliers, the less is removed; their mean is `sparsity` (section
    3).

    `D` is stretched to a range of `2 * spread` (lambda in the paper) and centred on its mean, as in
    the official code; one side can then be farther than `spread` from the target, which the paper's
    formula does not say. Rates that would leave [0, 0.99] are clipped and the rest shifted, so that
    the mean holds.

    Args:
        distribution: D of each layer.
        sparsity: the target.
        spread: lambda.
        sizes: weights of each layer, for the mean; by default all alike.

    Raises:
        UserError: a sparsity outside [0, 1), or a negative spread.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity {sparsity!r} is not allowed; use a number in [0, 1)")
    if not spread >= 0:
        raise UserError(f"spread {spread!r} is not allowed; use a number >= 0, as 0.08")
    share = np.ones(len(distribution)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    share /= share.sum()
    distribution = np.asarray(distribution, dtype=np.float64)
    reach = np.ptp(distribution)
    kept = 2 * spread * ((distribution - distribution.min()) / (reach or 1))
    rates = sparsity - (kept - share @ kept)
    highest = max(_HIGHEST, (1 + sparsity) / 2)
    if rates.min() < 0 or rates.max() > highest:
        rates = _shifted(rates, share, sparsity, highest)
    return rates.tolist()

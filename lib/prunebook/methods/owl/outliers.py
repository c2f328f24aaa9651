"""OWL's outlier distribution and the sparsities that it gives each layer.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to High Sparsity
(arXiv 2310.05175), section 3; official code luuyin/OWL at dddb7a4."""

from collections.abc import Sequence

import numpy as np
import torch

from ...criteria.wanda import wanda_score
from ...errors import UserError
from ...models.anatomy import weight_of
from ...passes.sequential import walk
from ...passes.statistics import InputNorm
from ...sparsity.allocation import shifted_rates

_HIGHEST = 0.99  # no layer loses more, unless the target is nearly that


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
            name: wanda_score(weight_of(block.linears[name]), statistic.norm()).dense()
            for name, statistic in block.collect(InputNorm, propagate=True).items()
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
        rates = shifted_rates(rates, share, sparsity, highest)
    return rates.tolist()

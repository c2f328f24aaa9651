"""OWL's outlier distribution, and the sparsities that it gives to layers.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to
High Sparsity (arXiv 2310.05175), section 3; official code luuyin/OWL at dddb7a4.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from ...criteria.wanda import wanda_score
from ...errors import UserError
from ...models.anatomy import weight_of
from ...passes.sequential import walk
from ...passes.statistics import InputNorm
from ...sparsity.allocation import shifted_rates

GRANULARITIES = ("block", "layer")
# No layer loses more than this, unless the target itself is nearly as high.
_HIGHEST = 0.99


def check_granularity(granularity: str) -> None:
    """Raise a `UserError` unless the granularity is known."""
    if granularity not in GRANULARITIES:
        raise UserError(f"granularity {granularity!r} is unknown; use 'block' or 'layer'")


@torch.no_grad()
def outliers(
    model: PreTrainedModel,
    calibration: torch.Tensor,
    multiplier: float = 5.0,
    *,
    granularity: str = "block",
    precision: str = "exact",
    progress: str | None = None,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """The layerwise outlier distribution D of the dense model (section 3).

    D is the percentage of the Wanda scores that exceed a multiple of their mean.

    Args:
        model: a causal language model with recognisable blocks.
        calibration: int64 `[n, length]`.
        multiplier: M.
        granularity: mean and count over all linears of a `block` (the paper's), or of one `layer`
            (linear).
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.
        device: where blocks compute, one at a time; None for where the model is.

    Returns:
        Name of linear -> D in percent; by `block` all linears of a block share it.

    Raises:
        UserError: an unknown granularity, or bad calibration tokens.
    """
    check_granularity(granularity)
    distribution = {}
    for block in walk(model, calibration, precision=precision, progress=progress, device=device):
        # A_ij = |W_ij| * ||X_j||_2; the blocks stay dense, so that one pass measures and moves on.
        scores = {}
        for name, statistic in block.collect(InputNorm, propagate=True).items():
            scores[name] = wanda_score(weight_of(block.linears[name]), statistic.norm()).dense()
        groups = [list(scores)]
        if granularity == "layer":
            groups = [[name] for name in scores]
        for names in groups:
            percentage = outlier_percentage([scores[name] for name in names], multiplier)
            distribution |= dict.fromkeys(names, percentage)
    return distribution


def outlier_percentage(scores: Sequence[torch.Tensor], multiplier: float) -> float:
    """D of some linears together: the percentage of entries with `A_ij > M * mean(A)`.

    Args:
        scores: A, `[out, in]` of each linear.
        multiplier: M.
    """
    size = sum(score.numel() for score in scores)
    # The mean is summed in double precision: rounding must not decide what is an outlier.
    threshold = multiplier * sum(score.sum(dtype=torch.float64) for score in scores) / size
    above = sum(int((score > threshold).sum()) for score in scores)
    return 100 * above / size


def owl_rates(
    distribution: Sequence[float],
    sparsity: float,
    spread: float = 0.08,
    sizes: Sequence[int] | None = None,
) -> list[float]:
    """OWL's sparsities: the more outliers, the less is removed; their mean is the target.

    D is stretched to a range of `2 * spread` and centred on its mean, as in the official code. One
    side can then be farther than `spread` from the target, which the paper does not say. Rates that
    would leave [0, 0.99] are clipped and the others shifted, so that the mean holds.

    Args:
        distribution: D of each layer.
        sparsity: S, the target.
        spread: lambda.
        sizes: weights of each layer, for the mean; None for equal sizes.

    Returns:
        S_l of each layer.

    Raises:
        UserError: a sparsity outside [0, 1), or a negative spread.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity {sparsity!r} is not allowed; use a number in [0, 1)")
    if not spread >= 0:
        raise UserError(f"spread {spread!r} is not allowed; use a number >= 0, e.g. 0.08")
    D = np.asarray(distribution, dtype=np.float64)
    share = np.ones(len(D))
    if sizes is not None:
        share = np.asarray(sizes, dtype=np.float64)
    share /= share.sum()
    # g_l = 2 lambda (D_l - min D) / (max D - min D); equal D give equal rates
    g = 2 * spread * ((D - D.min()) / (np.ptp(D) or 1))
    # S_l = 1 - d_l with the density d_l = g_l - mean(g) + 1 - S
    rates = sparsity - (g - share @ g)
    highest = max(_HIGHEST, (1 + sparsity) / 2)
    if rates.min() < 0 or rates.max() > highest:
        rates = shifted_rates(rates, share, sparsity, highest)
    return rates.tolist()

"""OWL's outlier distribution: how many scores of a block or layer are far above their mean.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to
High Sparsity (arXiv 2310.05175), section 3; official code luuyin/OWL at dddb7a4.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ...criteria.wanda import wanda_score
from ...errors import UserError
from ...models.anatomy import weight_of
from ...passes.sequential import walk
from ...passes.statistics import InputNorm

GRANULARITIES = ("block", "layer")


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

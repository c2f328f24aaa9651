"""The mask that DSnoT's swaps start from: that of another criterion.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df.
"""

from collections.abc import Sequence

import torch

from ...criteria import SCORES
from .moments import InputMoments, InputMomentsAndHessian

CRITERIA = (*SCORES, "sparsegpt")


def make_statistic(
    width: int, device: torch.device, criterion: str, as_released: Sequence[str] = ()
) -> InputMoments:
    """A new statistic of an input, which holds what the criterion reads, too.

    Args:
        width: inputs of the linear.
        device: device of the sums.
        criterion: one of `CRITERIA`.
        as_released: some of `as_released.AS_RELEASED`; `variance` averages those of sequences.
    """
    variance = "pooled"
    if "variance" in as_released:
        variance = "within"
    # SparseGPT's score is the only one that reads more than norms.
    if criterion == "sparsegpt":
        return InputMomentsAndHessian(width, device, variance=variance)
    return InputMoments(width, device, variance=variance)


def first_scores(criterion: str, weight: torch.Tensor, statistic: InputMoments) -> torch.Tensor:
    """The scores `[out, in]` of a criterion, of which the lowest go from the first mask.

    Args:
        criterion: one of `CRITERIA`.
        weight: `[out, in]`.
        statistic: moments of its inputs, as from `make_statistic` for this criterion.
    """
    if criterion == "sparsegpt":
        return statistic.obs_score(weight)
    return SCORES[criterion](weight, statistic.norm()).dense()

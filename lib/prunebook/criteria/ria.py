"""RIA: a weight's share of its row and of its column, times a power of the norm of its input.

Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models
(ICLR 2024); official code biomedical-cybernetics/Relative-importance-and-activation-pruning at
7bc55b0.
"""

import torch

from ..kernels.scores import Factors


def relative_importance(weight: torch.Tensor) -> torch.Tensor:
    """`RI_ij = |W_ij| / sum_i' |W_i'j| + |W_ij| / sum_j' |W_ij'|`, float32 `[out, in]`; shares of
    nothing are 0."""
    magnitude = weight.abs().float()
    column, row = _sums(magnitude)
    return magnitude / column + magnitude / row[:, None]


def _sums(magnitude: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the columns `[in]` and rows `[out]`; where one is zero so are its terms, and 1 gives
    the share 0, too."""
    column = magnitude.sum(0)
    row = magnitude.sum(1)
    return column.masked_fill(column == 0, 1), row.masked_fill(row == 0, 1)


def ria_score(weight: torch.Tensor, norm: torch.Tensor, exponent: float = 0.5) -> torch.Tensor:
    """`RIA_ij = RI_ij * ||X_j||_2^a`.

    Args:
        weight: `[out, in]`.
        norm: `[in]`, the norm of each input feature over the calibration tokens.
        exponent: a; 0 ignores the data.

    Returns:
        float32 `[out, in]`.
    """
    return relative_importance(weight) * norm.float() ** exponent


def ria_factors(weight: torch.Tensor, norm: torch.Tensor, exponent: float = 0.5) -> Factors:
    """`ria_score` as kernels take it: the sums that make shares, and the powers of the norms."""
    return Factors(norm.float() ** exponent, *_sums(weight.abs().float()))

"""RIA: a weight's share of its row and of its column, times a power of the norm of its input.

Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models
(ICLR 2024); official code biomedical-cybernetics/Relative-importance-and-activation-pruning at
7bc55b0.
"""

import torch

from ..kernels.score import Score


def ria_score(weight: torch.Tensor, norm: torch.Tensor, exponent: float = 0.5) -> Score:
    """`S_ij = (|W_ij| / sum_i' |W_i'j| + |W_ij| / sum_j' |W_ij'|) * ||X_j||_2^a`.

    The bracket is the relative importance: the weight's share of its column plus its share of its
    row. The share of a weight in a column or row of zeros is 0.

    Args:
        weight: `[out, in]`.
        norm: `[in]`, the norm of each input feature over the calibration tokens.
        exponent: power a of the norms; 0 ignores the data.
    """
    magnitude = weight.abs().float()
    # sum_i' |W_i'j| of each column and sum_j' |W_ij'| of each row
    column_sums = magnitude.sum(0)
    row_sums = magnitude.sum(1)
    return Score(
        weight,
        # ||X_j||_2^a
        columns=norm.float() ** exponent,
        # Where a sum is 0, all its terms are 0 and stay 0 when they are divided by 1.
        column_sums=column_sums.masked_fill(column_sums == 0, 1),
        row_sums=row_sums.masked_fill(row_sums == 0, 1),
    )

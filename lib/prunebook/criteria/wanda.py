"""Wanda: weight magnitude times the norm of the input it multiplies.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models (arXiv 2306.11695),
equation 1; official code locuslab/wanda at 8e8fc87.
"""

import torch

from ..kernels.score import Score


def wanda_score(weight: torch.Tensor, norm: torch.Tensor) -> Score:
    """`S_ij = |W_ij| * ||X_j||_2` (equation 1).

    Args:
        weight: `[out, in]`.
        norm: `[in]`, the norm of each input feature over the calibration tokens.
    """
    # The norm is the factor of a column: it is the same for all rows.
    return Score(weight, columns=norm.float())

"""Wanda: weight magnitude times the norm of the input it multiplies.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models (arXiv 2306.11695),
equation 1; official code locuslab/wanda at 8e8fc87.
"""

import torch

from ..kernels.scores import Factors


def wanda_score(weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """`S_ij = |W_ij| * ||X_j||_2` (equation 1).

    Args:
        weight: `[out, in]`.
        norm: `[in]`, the norm of each input feature over the calibration tokens.

    Returns:
        float32 `[out, in]`.
    """
    return weight.abs().float() * norm.float()


def wanda_factors(weight: torch.Tensor, norm: torch.Tensor) -> Factors:
    """`wanda_score` as kernels take it: what the magnitude is multiplied with."""
    return Factors(columns=norm.float())

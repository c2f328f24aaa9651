"""Magnitude: a weight matters as much as its absolute value."""

import torch

from ..kernels.score import Score


def magnitude_score(weight: torch.Tensor) -> Score:
    """`S_ij = |W_ij|`.

    Args:
        weight: `[out, in]`.
    """
    # A score without factors is the magnitude.
    return Score(weight)

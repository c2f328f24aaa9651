"""Magnitude: a weight matters as much as its absolute value."""

import torch


def magnitude_score(weight: torch.Tensor) -> torch.Tensor:
    """`|W|` in float32: `[out, in]` -> `[out, in]`."""
    return weight.abs().float()

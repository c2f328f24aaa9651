"""Weights with zeros, for the tests that pack them and those that multiply them packed."""

import torch
from tests.kernels.compiling import DEVICE


def sparse(rows, width, share, dtype=torch.float32, seed=0):
    """A weight of which about that share is not 0."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    keep = torch.rand(rows, width, generator=generator) < share
    return torch.where(keep, weight, 0.0).to(dtype).to(DEVICE)


def special(dtype):
    """Zeros of both signs, subnormals, infinities and NaN with a payload; and what is left of
    them when zeros are not stored."""
    small = torch.finfo(dtype).smallest_normal / 4
    weight = torch.tensor(
        [[-0.0, 0.0, small, -small, float("inf"), -float("inf"), float("nan"), -0.0, 1.0]] * 2
    )
    weight = weight.to(dtype).to(DEVICE)
    bits = weight.view(torch.int16 if dtype.itemsize == 2 else torch.int32)
    bits[1, 6] += 1
    return weight, torch.where(weight == 0, 0.0, weight)

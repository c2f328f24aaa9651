"""Random tensors that follow a seed of their own, whatever the test drew before."""

import torch


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers, float32 `shape` on the CPU."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

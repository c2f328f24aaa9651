"""Statistics of inputs that come in batches."""

import torch

from prunebook.passes.statistics import InputNorm


def norm_of(*batches: torch.Tensor) -> torch.Tensor:
    """The norm of each input over all batches `[..., width]`, one after the other."""
    statistic = InputNorm(batches[0].shape[-1], torch.device("cpu"))
    for batch in batches:
        statistic.update(batch)
    return statistic.norm()

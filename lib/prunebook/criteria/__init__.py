"""Importance scores that two papers or more use, one file for each family.

A score function is a pure function of tensors and returns a `Score`; a higher score means keep.
`block_scores` is the one file whose functions take a model and run passes.
"""

from collections.abc import Callable

import torch

from ..kernels.score import Score
from .magnitude import magnitude_score
from .ria import ria_score
from .wanda import wanda_score


def _magnitude_of(weight: torch.Tensor, norm: torch.Tensor) -> Score:
    """The magnitude, with the arguments of the other scores."""
    return magnitude_score(weight)


# The scores that take a weight `[out, in]` and the norms of its inputs `[in]`, by name.
SCORES: dict[str, Callable[[torch.Tensor, torch.Tensor], Score]] = {
    "magnitude": _magnitude_of,
    "ria": ria_score,
    "wanda": wanda_score,
}

__all__ = ["SCORES"]

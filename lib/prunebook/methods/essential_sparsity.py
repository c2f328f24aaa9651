"""Magnitude pruning: remove the weights of smallest absolute value.

The one-shot rule of Jaiswal et al., The Emergence of Essential Sparsity in Large Pre-trained Models
(arXiv 2306.03805), with `scope="model"`: one global ranking over all linears of the blocks.
`scope="layer"` is the baseline of Wanda's and SparseGPT's tables.

Differences from the papers' code:

- Counts are rounded down, where `torch.nn.utils.prune` rounds to the nearest; ties go lowest index
  first.
- Wanda's baseline thresholds with `<=` and removes one weight more.

Beside VITA-Group/essential_sparsity at 2f85c27, global masks of random OPT and BERT models in
float32 differ by at most the one weight that is rounded differently (bits equal: 99.999 %), n:m
masks by none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ..criteria.magnitude import magnitude_score
from ..kernels.masking import apply_mask, masked_copy
from ..models.anatomy import find_blocks, weight_of
from ..sparsity.allocation import uniform
from ..sparsity.patterns import NofM, Pattern, keep_mask, keep_masks, make_pattern
from .base import Method


@dataclass(frozen=True)
class Magnitude(Method):
    """Magnitude pruning; needs no data, and the remaining weights keep their values.

    Args:
        sparsity: fraction of the weights removed from each comparison group, in [0, 1).
        pattern: n:m instead, e.g. '2:4'.
        scope: what weights are compared with: `layer` (the usual baseline), `row` or `model`.

    Raises:
        UserError: an impossible sparsity, pattern or scope.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    scope: str = "layer"

    paper: ClassVar[str | None] = "essential-sparsity"
    needs_calibration: ClassVar[bool] = False
    takes_allocation: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the weights of each comparison group"

    def __post_init__(self):
        make_pattern(self.sparsity, self.pattern, self.scope)

    @property
    def target(self) -> Pattern:
        """The pattern that every linear gets where no allocation says otherwise."""
        return make_pattern(self.sparsity, self.pattern, self.scope)

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The pruned copy of one weight.

        Args:
            weight: `[out, in]`.
        """
        return masked_copy(weight, keep_mask(magnitude_score(weight), self.target))

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor | None = None,
        *,
        targets: Mapping[str, Pattern] | None = None,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Prune all linears of the decoder blocks in place; text, progress and device are not used.

        Args:
            model: as for `Method.prune`.
            targets: name of each linear -> its pattern; None for `target` everywhere.
        """
        weights = {}
        for block in find_blocks(model):
            weights |= {name: weight_of(linear) for name, linear in block.linears.items()}
        # S_ij = |W_ij| of every linear, before any weight changes
        scores = {name: magnitude_score(weight) for name, weight in weights.items()}
        one_ranking = not isinstance(self.target, NofM) and self.target.scope == "model"
        if targets is None and one_ranking:
            # One global ranking: the lowest of all linears go, whatever each of them loses.
            masks = keep_masks(list(scores.values()), self.target.sparsity)
        else:
            # Each linear on its own: the lowest of each of its comparison groups go.
            targets = targets or uniform(model, self.target)
            masks = [keep_mask(score, targets[name]) for name, score in scores.items()]
        # The removed weights are set to zero in place.
        for weight, keep in zip(weights.values(), masks, strict=True):
            apply_mask(weight, keep)

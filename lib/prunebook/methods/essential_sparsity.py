"""Magnitude pruning: remove the weights of smallest absolute value.

The one-shot rule of Jaiswal et al., The Emergence of Essential Sparsity in Large Pre-trained Models
(arXiv 2306.03805), with `scope="model"`: one global ranking over all linears of the blocks.
`scope="layer"` is the baseline of Wanda's and SparseGPT's tables.

Differences from the papers' code: exact counts, ties lowest index first (Wanda's baseline
thresholds with `<=` and removes one weight more).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..criteria.magnitude import magnitude_score
from ..kernels.masking import masked_copy
from ..kernels.scores import Factors
from ..kernels.select import select_global
from ..models.anatomy import find_blocks, weight_of
from ..sparsity.allocation import uniform
from ..sparsity.patterns import Pattern, count_removed, keep_mask, make_pattern, prune_lowest


@dataclass(frozen=True)
class Magnitude:
    """Magnitude pruning; needs no data.

    Args:
        sparsity: fraction of the weights removed, in [0, 1).
        pattern: n:m instead, as '2:4'.
        scope: what weights are compared with: `layer` (the usual baseline), `row` or `model`.

    Raises:
        UserError: an impossible sparsity, pattern or scope.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    scope: str = "layer"

    paper: ClassVar[str] = "essential-sparsity"
    needs_calibration: ClassVar[bool] = False
    takes_allocation: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Unstructured", "Semi-structured"],
        "criteria": ["Magnitude"],
        "weight": ["Frozen"],
    }

    def __post_init__(self):
        self.target

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, self.scope)

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The pruned copy of one weight `[out, in]`."""
        return masked_copy(weight, keep_mask(magnitude_score(weight), self.target))

    @torch.no_grad()
    def prune(
        self, model, calibration=None, targets=None, progress: str | None = None, device=None
    ) -> None:
        """Prune all linears of the decoder blocks in place; calibration, progress and device are
        not used.

        Args:
            targets: name of each linear -> its pattern, where they differ; by default `target` for
                all.
        """
        weights = {
            n: weight_of(linear)
            for block in find_blocks(model)
            for n, linear in block.linears.items()
        }
        if targets is None and getattr(self.target, "scope", None) == "model":
            removed = count_removed(
                sum(weight.numel() for weight in weights.values()), self.target.sparsity
            )
            select_global(list(weights.values()), removed, [Factors()] * len(weights))
            return
        targets = targets or uniform(model, self.target)
        for name, weight in weights.items():
            prune_lowest(weight, Factors(), targets[name])

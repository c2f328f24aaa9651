"""Wanda: prune by weight magnitude times input norm, compared within each output row; no weight
update.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models (arXiv 2306.11695),
equation 1 and algorithm 1; official code locuslab/wanda at 8e8fc87.

Differences from the official code: linears that read the same input share one norm, and the
statistics pass ends before the block's last linear. N:M ties go lowest index first (unspecified
there). The function computed is the same.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..criteria.wanda import wanda_factors, wanda_score
from ..errors import UserError
from ..kernels.masking import masked_copy
from ..passes.statistics import InputNorm
from ..sparsity.allocation import uniform
from ..sparsity.patterns import Pattern, keep_mask, make_pattern
from .scored import prune_by_score


@dataclass(frozen=True)
class Wanda:
    """Pruning by weights and activations.

    Args:
        sparsity: fraction of the weights removed, in [0, 1).
        pattern: n:m instead, as '2:4'.
        scope: the comparison group: `row` (the paper's) or `layer` (its ablation).
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
            Norms are summed in float32 in both.

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    scope: str = "row"
    precision: str = "exact"

    paper: ClassVar[str] = "wanda"
    needs_calibration: ClassVar[bool] = True
    takes_allocation: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Unstructured", "Semi-structured"],
        "criteria": ["Wanda"],
        "weight": ["Frozen"],
    }

    def __post_init__(self):
        self.target
        if getattr(self.target, "scope", None) == "model":
            raise UserError("scope 'model' is not allowed for wanda; use 'row' or 'layer'")

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, self.scope)

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The pruned copy of one weight `[out, in]`, given its inputs `[tokens, in]`."""
        statistic = InputNorm(weight.shape[1], weight.device)
        statistic.update(inputs)
        return masked_copy(weight, keep_mask(wanda_score(weight, statistic.norm()), self.target))

    def prune(
        self,
        model,
        calibration: torch.Tensor,
        targets=None,
        progress: str | None = None,
        device=None,
    ) -> None:
        """Prune all linears of the decoder blocks in place, block by block; see `prune_by_score`.

        Args:
            targets: name of each linear -> its pattern, where they differ; by default `target` for
                all.
        """
        targets = targets or uniform(model, self.target)
        prune_by_score(
            model,
            calibration,
            wanda_factors,
            targets,
            precision=self.precision,
            progress=progress,
            device=device,
        )

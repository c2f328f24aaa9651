"""SparseGPT: one-shot pruning in which the remaining weights make up for the removed ones.

Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot
(arXiv 2301.00774); official code IST-DASLab/sparsegpt at 147d215.

Differences from the official code, of which only the exact count changes the function computed:

- Linears that read the same input share Hessian and factor and are swept together, each with its
  own threshold.
- The factor comes from one Cholesky factorisation and one triangular inverse.
- The threshold is selected, not sorted, and removes exactly floor(rows * columns * sparsity)
  weights of a block; the official `<=` removes one more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...errors import UserError
from ...kernels.masking import masked_copy
from ...models.anatomy import weight_of
from ...passes.sequential import walk
from ...passes.statistics import Hessian
from ...sparsity.allocation import uniform
from ...sparsity.patterns import NofM, Pattern, make_pattern
from ...validation import check_flag, check_number
from ..base import Method, check_scope
from .column_sweep import sparsegpt_sweep


@dataclass(frozen=True)
class SparseGPT(Method):
    """One-shot pruning with optimal-brain-surgeon updates.

    Args:
        sparsity: fraction of the weights removed, in [0, 1), in every block of columns of every
            linear.
        pattern: n:m instead, e.g. '2:4'.
        damping: lambda, added to the Hessian's diagonal, as a fraction of its mean.
        block_size: columns that share a threshold (the paper's B_s) and are updated lazily (its B).
        update: False chooses masks by the same rule but leaves the remaining weights as they were
            (ablation).
        precision: `exact` (forward passes in the model's dtype, Hessians in float32) or `fast`
            (forward passes and, on the CPU, Hessians multiply in bfloat16). Sums and the solution
            stay in float32.

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    damping: float = 0.01
    block_size: int = 128
    update: bool = True
    precision: str = "exact"

    paper: ClassVar[str | None] = "sparsegpt"
    takes_allocation: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the weights of each block of columns of each linear"

    def __post_init__(self):
        check_number("damping", self.damping, "a fraction >= 0, e.g. 0.01")
        check_flag("update", self.update)
        check_scope(self.target, "sparsegpt", ("layer",))
        # A block holds whole groups of n:m.
        m = 1
        if isinstance(self.target, NofM):
            m = self.target.m
        if not isinstance(self.block_size, int) or self.block_size < 1 or self.block_size % m:
            raise UserError(
                f"block_size {self.block_size!r} is not allowed; use a positive multiple of {m}"
            )

    @property
    def target(self) -> Pattern:
        """The pattern that every linear gets where no allocation says otherwise."""
        return make_pattern(self.sparsity, self.pattern, "layer")

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """The pruned and updated copy of one weight.

        Args:
            weight: `[out, in]`.
            activations: `[tokens, in]`, what the weight multiplies.
        """
        statistic = Hessian(weight.shape[1], weight.device)
        statistic.update(activations)
        return self._solve([weight], statistic, [self.target])[0]

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        targets: Mapping[str, Pattern] | None = None,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Prune all linears of the decoder blocks in place, block by block.

        Args:
            model: as for `Method.prune`, like `text`, `progress` and `device`.
            targets: name of each linear -> its pattern; None for `target` everywhere.
        """
        targets = targets or uniform(model, self.target)
        hessian_of = partial(Hessian, precision=self.precision)
        for block in walk(model, text, precision=self.precision, progress=progress, device=device):
            # The Hessian X^T X of each distinct input, as the pruned blocks hand it on.
            statistics = block.collect(hessian_of)
            # Linears that read one input (e.g. q, k, v) are solved together.
            for names in block.groups:
                weights = [weight_of(block.linears[name]) for name in names]
                patterns = [targets[name] for name in names]
                solved = self._solve(weights, statistics[names[0]], patterns)
                for weight, new in zip(weights, solved, strict=True):
                    weight.copy_(new)

    def _solve(
        self, weights: Sequence[torch.Tensor], statistic: Hessian, patterns: Sequence[Pattern]
    ) -> list[torch.Tensor]:
        """The new weights of linears that read one input, `[out, in]` in their own dtypes."""
        swept = sparsegpt_sweep(
            weights, statistic.matrix(), patterns, self.damping, self.block_size
        )
        # Rounding to a narrower dtype keeps zeros zero: the mask survives the cast.
        if self.update:
            return [new.to(weight.dtype) for weight, (new, _) in zip(weights, swept, strict=True)]
        # The ablation takes the mask and leaves the remaining weights as they were.
        return [masked_copy(weight, keep) for weight, (_, keep) in zip(weights, swept, strict=True)]

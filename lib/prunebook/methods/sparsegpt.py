"""SparseGPT: prune one column after the other and let the columns to its right make up for the
error.

Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot
(arXiv 2301.00774), algorithm 1; official code IST-DASLab/sparsegpt at 147d215.

Differences from the official code: linears that read the same input share Hessian and factor and
are swept together, each with its own threshold; the factor comes from one Cholesky and one
triangular inverse; the threshold is selected, not sorted, and removes exactly floor(rows * columns
* sparsity) weights a block (the official `<=` removes one more). The function computed is otherwise
  the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ..criteria.obs import inverse_factor, obs_score
from ..errors import UserError
from ..kernels.masking import masked_copy
from ..kernels.sparsegpt_block import sparsegpt_block
from ..models.anatomy import weight_of
from ..passes.sequential import walk
from ..passes.statistics import Hessian
from ..sparsity.allocation import uniform
from ..sparsity.patterns import (
    ExactCount,
    NofM,
    Pattern,
    Unstructured,
    check_width,
    keep_mask,
    make_pattern,
)
from ..validation import check_flag, check_number


@torch.no_grad()
def sparsegpt_update(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    pattern: Pattern,
    damping: float = 0.01,
    block_size: int = 128,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prune and update one weight (algorithm 1).

    Args:
        weight: `[out, in]`.
        hessian: `[in, in]`, X^T X at any scale.
        pattern: n:m, or unstructured (compared over all rows of a block of columns).
        damping: lambda as a fraction of the mean of diag(H).
        block_size: columns that share a threshold.

    Returns:
        New weight, float32 `[out, in]`, and its mask, bool `[out, in]`, True where kept.

    Raises:
        UserError: the damped Hessian is not positive definite, or the pattern does not divide the
            width.
    """
    return _update_siblings([weight], hessian, [pattern], damping, block_size)[0]


def _update_siblings(
    weights: Sequence[torch.Tensor], H, patterns: Sequence[Pattern], damping, block_size
):
    """`sparsegpt_update` for weights that share inputs: rows stacked, one sweep, separate
    thresholds."""
    for weight, pattern in zip(weights, patterns, strict=True):
        check_width(weight.shape[1], pattern)
    # n:m is the same for all siblings.
    n_of_m = (patterns[0].n, patterns[0].m) if isinstance(patterns[0], NofM) else None
    counts = [len(weight) for weight in weights]
    # Transposed, so that a column of W is contiguous: W is [in, rows] from here on.
    W = torch.cat([weight.float() for weight in weights]).T.contiguous()
    H = H.clone()
    dead = H.diagonal() == 0
    H.diagonal()[dead] = 1
    W[dead] = 0
    U = inverse_factor(H, damping)
    if not torch.isfinite(W.sum() + U.sum()):  # NaN and infinity outlast a sum
        raise UserError(
            "weights or calibration inputs hold NaN or infinity; SparseGPT needs finite ones"
        )
    keep = torch.ones_like(W, dtype=torch.bool)
    for i1 in range(0, len(W), block_size):
        i2 = min(i1 + block_size, len(W))
        if n_of_m is None:
            scores = obs_score(W[i1:i2].T, U.diagonal()[i1:i2]).split(counts)
            shares = (
                _share(p, len(score), i1, i2) for p, score in zip(patterns, scores, strict=True)
            )
            keep[i1:i2] = torch.cat(
                [keep_mask(score, share) for score, share in zip(scores, shares, strict=True)]
            ).T
        E = sparsegpt_block(W[i1:i2], keep[i1:i2], U[i1:i2, i1:i2], n_of_m)
        W[i2:].addmm_(U[i1:i2, i2:].T, E, alpha=-1)
    return list(zip(W.T.split(counts), keep.T.split(counts), strict=True))


def _share(
    pattern: Unstructured | ExactCount, rows: int, i1: int, i2: int
) -> Unstructured | ExactCount:
    """What a layer's pattern asks of its columns i1 to i2; the shares of a budget sum to it."""
    if isinstance(pattern, Unstructured):
        return Unstructured(pattern.sparsity, "layer")
    width = pattern.size // rows
    return ExactCount(
        pattern.removed * i2 // width - pattern.removed * i1 // width, rows * (i2 - i1), "layer"
    )


@dataclass(frozen=True)
class SparseGPT:
    """One-shot pruning with optimal-brain-surgeon updates.

    Args:
        sparsity: fraction of the weights removed, in [0, 1), in every block of columns of every
            linear.
        pattern: n:m instead, as '2:4'.
        damping: added to the Hessian's diagonal, as a fraction of its mean.
        block_size: columns that share a threshold (the paper's B_s) and are updated lazily (its B).
        update: False chooses masks by the same rule but leaves the survivors as they were
            (ablation).
        precision: `exact` (forward passes in the model's dtype, Hessians in float32), or `fast`:
            forward passes and, on the CPU, Hessians multiply in bfloat16. Sums and the solution
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

    paper: ClassVar[str] = "sparsegpt"
    needs_calibration: ClassVar[bool] = True
    takes_allocation: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Unstructured", "Semi-structured"],
        "criteria": ["Hessian"],
        "weight": ["Update"],
    }

    def __post_init__(self):
        check_number("damping", self.damping, "a fraction >= 0, as 0.01")
        check_flag("update", self.update)
        if isinstance(self.target, Unstructured) and self.target.scope != "layer":
            raise UserError(
                f"scope {self.target.scope!r} is not allowed for sparsegpt; use 'layer'"
            )
        m = self.target.m if isinstance(self.target, NofM) else 1
        if not isinstance(self.block_size, int) or self.block_size < 1 or self.block_size % m:
            raise UserError(
                f"block_size {self.block_size!r} is not allowed; use a positive multiple of {m}"
            )

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, "layer")

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The pruned and updated copy of one weight `[out, in]`, given its inputs `[tokens,
        in]`."""
        statistic = Hessian(weight.shape[1], weight.device)
        statistic.update(inputs)
        return self._solve([weight], statistic, [self.target])[0]

    @torch.no_grad()
    def prune(
        self,
        model,
        calibration: torch.Tensor,
        targets=None,
        progress: str | None = None,
        device=None,
    ) -> None:
        """Prune all linears of the decoder blocks in place, block by block.

        Args:
            calibration: int64 `[n, length]`.
            progress: label of a progress bar, None for none.
            targets: name of each linear -> its pattern, where they differ; by default `target` for
                all.
            device: where blocks compute, one at a time; None for where the model is.
        """
        targets = targets or uniform(model, self.target)
        for block in walk(
            model, calibration, precision=self.precision, progress=progress, device=device
        ):
            statistics = block.collect(partial(Hessian, precision=self.precision))
            for names in block.groups:
                weights = [weight_of(block.linears[name]) for name in names]
                solved = self._solve(
                    weights, statistics[names[0]], [targets[name] for name in names]
                )
                for weight, new in zip(weights, solved, strict=True):
                    weight.copy_(new)

    def _solve(
        self, weights: Sequence[torch.Tensor], statistic: Hessian, patterns
    ) -> list[torch.Tensor]:
        pairs = _update_siblings(
            weights, statistic.matrix(), patterns, self.damping, self.block_size
        )
        if self.update:
            # Rounding to a narrower dtype keeps zeros zero: the mask survives the cast.
            return [new.to(weight.dtype) for weight, (new, _) in zip(weights, pairs, strict=True)]
        return [masked_copy(weight, keep) for weight, (_, keep) in zip(weights, pairs, strict=True)]

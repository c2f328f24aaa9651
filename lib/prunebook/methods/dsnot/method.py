"""DSnoT: swap pruned and kept weights of each row until the expected change of its output is small;
no value changes.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df.

Differences from the official code: all linears are refined (`skip="mlp"` leaves out what it leaves
out by default); variances are pooled over all tokens (`variance="within"` averages each
sequence's); the SparseGPT start has a Hessian, which is never filled there; a row stops when a
queue is empty, where a weight of no or the other sign is taken there and the count of the row can
drift (`go_on=True`); a feature that is always 0 is never swapped. See `swapping`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ...criteria import SCORES
from ...errors import UserError
from ...kernels.masking import apply_mask, masked_copy
from ...models.anatomy import weight_of
from ...passes.sequential import walk
from ...sparsity.allocation import uniform
from ...sparsity.patterns import NofM, Pattern, keep_mask, make_pattern
from ...validation import check_flag, check_number, check_whole
from .mask_swaps import refine_mask
from .moments import VARIANCES, InputMoments, InputMomentsAndHessian

_STARTS = (*SCORES, "sparsegpt")


@dataclass(frozen=True)
class DSnoT:
    """Another method's mask, refined by swaps within rows; survivors keep their values.

    Args:
        sparsity: fraction of the weights removed, in [0, 1), from every row.
        pattern: n:m instead, as '2:4'.
        start: the score of the first mask, per row: `wanda`, `magnitude`, `ria` or `sparsegpt`
            (without its update).
        cycles: T, swaps of a row at most.
        threshold: a row stops at this expected change, in sums over a sequence: in means, it is
            divided by the length.
        power: p, of the variance in the order of what comes back; 0 ignores it.
        variance: `pooled` over all tokens, or `within` sequences, averaged (the official code).
        overshoot: whether a swap may change the sign of the expected change; never with n:m.
        go_on: go on as the official code when a queue is empty; rows then keep other counts. Not
            with n:m.
        skip: linears whose names hold this text keep the first mask; `mlp` is the official default.
        precision: of the forward passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    start: str = "wanda"
    cycles: int = 50
    threshold: float = 0.1
    power: float = 1.0
    variance: str = "pooled"
    overshoot: bool = True
    go_on: bool = False
    skip: str | None = None
    precision: str = "exact"

    paper: ClassVar[str] = "dsnot"
    needs_calibration: ClassVar[bool] = True
    takes_allocation: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Unstructured", "Semi-structured"],
        "criteria": ["Magnitude", "Hessian", "Wanda"],
        "weight": ["Frozen"],
    }

    def __post_init__(self):
        if getattr(self.target, "scope", None) == "model":
            raise UserError("scope 'model' is not allowed for dsnot; use 'row' or 'layer'")
        for name, allowed in (("start", _STARTS), ("variance", VARIANCES)):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} {getattr(self, name)!r} is unknown; use "
                    f"{', '.join(map(repr, allowed))}"
                )
        check_whole("cycles", self.cycles, 0, ", as 50")
        for name in ("threshold", "power"):
            check_number(name, getattr(self, name))
        for name in ("overshoot", "go_on"):
            check_flag(name, getattr(self, name))
        if self.go_on and isinstance(self.target, NofM):
            raise UserError(
                f"go_on is not allowed with pattern {self.target}; leave it out, or use sparsity"
            )
        if self.skip is not None and not (isinstance(self.skip, str) and self.skip):
            raise UserError(
                f"skip {self.skip!r} is not allowed; use a part of a linear's name, as 'mlp', or "
                "None"
            )

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, "row")

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The pruned copy of one weight `[out, in]`, given its inputs `[tokens, in]` or
        `[sequences, tokens, in]`."""
        statistic = self._statistic(weight.shape[1], weight.device)
        statistic.update(inputs)
        return masked_copy(weight, self.mask(weight, statistic))

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

        Raises:
            UserError: a `skip` that no linear's name holds.
        """
        targets = targets or uniform(model, self.target)
        skipped = {name for name in targets if self.skip and self.skip in name}
        if self.skip and not skipped:
            raise UserError(
                f"skip {self.skip!r} is in no linear's name; use a part of one, as "
                f"{next(iter(targets))}"
            )
        for block in walk(
            model, calibration, precision=self.precision, progress=progress, device=device
        ):
            for name, statistic in block.collect(self._statistic).items():
                weight = weight_of(block.linears[name])
                apply_mask(weight, self.mask(weight, statistic, targets[name], name not in skipped))

    @property
    def _statistic(self) -> Callable[..., InputMoments]:
        kind = InputMomentsAndHessian if self.start == "sparsegpt" else InputMoments
        return functools.partial(kind, variance=self.variance)

    def mask(
        self, weight, statistic: InputMoments, pattern: Pattern | None = None, refine: bool = True
    ):
        """The mask of one weight `[out, in]`, True where kept. Args: pattern, by default `target`;
        refine or not."""
        norm = statistic.norm()
        pattern = pattern or self.target
        scores = (
            statistic.obs_score(weight)
            if self.start == "sparsegpt"
            else SCORES[self.start](weight, norm)
        )
        keep = keep_mask(scores, pattern)
        if not refine:
            return keep
        return refine_mask(
            weight,
            keep,
            statistic,
            spread=statistic.variance() ** self.power,
            scores=scores,
            group=pattern.m if isinstance(pattern, NofM) else None,
            cycles=self.cycles,
            threshold=self.threshold,
            overshoot=self.overshoot,
            go_on=self.go_on,
        )

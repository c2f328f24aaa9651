"""DSnoT: swap pruned and kept weights of each row until the expected change of its output is small.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df. `moments` measures the inputs, `queues` says
which weights a row may swap, and `mask_swaps` swaps them.

Differences from the official code. Pass the quoted word in `as_released` to get the official
behaviour.

- `skip-mlp`: all linears are refined; the official code leaves out the MLP by default.
- `variance`: variances are pooled over all tokens; the official code averages those of single
  sequences.
- `queues`: a row stops when a queue is empty; the official code goes on with weights whose D is 0
  or has the wrong sign, and the number of weights of the row can drift.
- Here the SparseGPT start uses the Hessian of the inputs; the official code never fills it.
- Without n:m and without `queues`, a weight whose input is always 0 is never swapped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...criteria import SCORES
from ...errors import UserError
from ...kernels.masking import apply_mask, masked_copy
from ...models.anatomy import weight_of
from ...passes.sequential import walk
from ...sparsity.allocation import uniform
from ...sparsity.patterns import NofM, Pattern, keep_mask, make_pattern
from ...validation import check_choices, check_flag, check_number, check_whole
from ..base import Method, check_scope
from .mask_swaps import refine_mask
from .moments import InputMoments, InputMomentsAndHessian

_CRITERIA = (*SCORES, "sparsegpt")
_AS_RELEASED = ("variance", "queues", "skip-mlp")


@dataclass(frozen=True)
class DSnoT(Method):
    """Another criterion's mask, refined by swaps within rows; weights keep their values.

    Args:
        sparsity: fraction of the weights removed from every row, in [0, 1).
        pattern: n:m instead, e.g. '2:4', or a pattern object. With an object of scope `layer` the
            first mask compares all weights of a linear, and rows lose different numbers of them.
        criterion: score of the first mask: `wanda`, `magnitude`, `ria` or `sparsegpt` (without its
            update). It is compared within rows unless `pattern` says otherwise.
        cycles: T, swaps of a row at most.
        threshold: a row stops where its expected change is at most this, in units of a sum over a
            sequence of L tokens; in units of a mean it is `threshold / L`.
        variance_power: p; pruned weights come back in the order of |D| / v^p, and 0 ignores the
            variance v.
        overshoot: whether a swap may change the sign of the expected change; never with n:m.
        as_released: what to do as the released code: `variance`, `queues` (rows may then lose
            other numbers of weights; not with n:m), `skip-mlp`; see the module.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    criterion: str = "wanda"
    cycles: int = 50
    threshold: float = 0.1
    variance_power: float = 1.0
    overshoot: bool = True
    as_released: tuple[str, ...] = ()
    precision: str = "exact"

    paper: ClassVar[str | None] = "dsnot"
    takes_allocation: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the weights of each row"

    def __post_init__(self):
        # The first mask is compared within rows, or within a layer if a pattern object says so.
        check_scope(self.target, "dsnot", ("row", "layer"))
        check_choices(self, "dsnot", {"criterion": _CRITERIA})
        check_whole("cycles", self.cycles, 0, example=50)
        for name in ("threshold", "variance_power"):
            check_number(name, getattr(self, name))
        check_flag("overshoot", self.overshoot)
        # A list, e.g. from JSON, is kept as a tuple.
        if isinstance(self.as_released, list):
            object.__setattr__(self, "as_released", tuple(self.as_released))
        words = self.as_released
        if not isinstance(words, tuple) or any(word not in _AS_RELEASED for word in words):
            allowed = ", ".join(map(repr, _AS_RELEASED))
            raise UserError(f"as_released {words!r} is not allowed; use a tuple of {allowed}")
        # The released n:m loop has no queue of weights that go.
        if "queues" in words and isinstance(self.target, NofM):
            raise UserError(
                f"as_released 'queues' is not allowed with pattern {self.target}; leave it out, or "
                "use sparsity"
            )

    @property
    def target(self) -> Pattern:
        """The pattern that every linear gets where no allocation says otherwise."""
        return make_pattern(self.sparsity, self.pattern, "row")

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """The pruned copy of one weight.

        Args:
            weight: `[out, in]`.
            activations: `[tokens, in]` or `[sequences, tokens, in]`, what the weight multiplies.
        """
        statistic = self._make_statistic(weight.shape[1], weight.device)
        statistic.update(activations)
        return masked_copy(weight, self.mask(weight, statistic))

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

        Raises:
            UserError: `skip-mlp` for a model without linears of that name.
        """
        targets = targets or uniform(model, self.target)
        skipped = self._skipped(list(targets))
        for block in walk(model, text, precision=self.precision, progress=progress, device=device):
            # Norms, sums s and variances v of the inputs, as the pruned blocks hand them on.
            for name, statistic in block.collect(self._make_statistic).items():
                weight = weight_of(block.linears[name])
                refine = name not in skipped
                apply_mask(weight, self.mask(weight, statistic, targets[name], refine))

    def mask(
        self,
        weight: torch.Tensor,
        statistic: InputMoments,
        pattern: Pattern | None = None,
        refine: bool = True,
    ) -> torch.Tensor:
        """The mask of one weight, bool `[out, in]`, True where kept.

        Args:
            weight: `[out, in]`.
            statistic: moments of its inputs.
            pattern: what the mask holds; None for `target`.
            refine: False leaves the first mask as it is.
        """
        pattern = pattern or self.target
        # The first mask: the lowest scores of each comparison group of the pattern go.
        if self.criterion == "sparsegpt":
            scores = statistic.obs_score(weight)
        else:
            scores = SCORES[self.criterion](weight, statistic.norm()).dense()
        keep = keep_mask(scores, pattern)
        if not refine:
            return keep
        group = None
        if isinstance(pattern, NofM):
            group = pattern.m
        # Swaps, at most T in a row.
        return refine_mask(
            weight,
            keep,
            statistic,
            powered_variance=statistic.variance() ** self.variance_power,
            scores=scores,
            group=group,
            cycles=self.cycles,
            threshold=self.threshold,
            overshoot=self.overshoot,
            released_queues="queues" in self.as_released,
        )

    def _make_statistic(self, width: int, device: torch.device) -> InputMoments:
        """A new statistic of an input of `width` features, as criterion and `as_released` ask."""
        kind = InputMoments
        if self.criterion == "sparsegpt":
            kind = InputMomentsAndHessian
        variance = "pooled"
        if "variance" in self.as_released:
            variance = "within"
        return kind(width, device, variance=variance)

    def _skipped(self, names: list[str]) -> set[str]:
        """The linears that keep the first mask, of all that have these names."""
        if "skip-mlp" not in self.as_released:
            return set()
        skipped = {name for name in names if "mlp" in name}
        if not skipped:
            raise UserError(
                "as_released 'skip-mlp' needs linears whose names hold 'mlp'; leave it out for a "
                f"model with linears such as {names[0]}"
            )
        return skipped

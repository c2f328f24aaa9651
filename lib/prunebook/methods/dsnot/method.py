"""DSnoT: swap pruned and kept weights of each row until the expected change of its output is small.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df. `moments` measures the inputs, `first_mask` has
the mask to start from, `queues` says which weights a row may swap, and `mask_swaps` swaps them. The
differences from the official code are in `as_released`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...kernels.masking import apply_mask, masked_copy
from ...models.anatomy import weight_of
from ...passes.sequential import walk
from ...sparsity.allocation import uniform
from ...sparsity.patterns import NofM, Pattern, keep_mask, make_pattern
from ..base import Method
from .as_released import unrefined_linears
from .first_mask import first_scores, make_statistic
from .mask_swaps import refine_mask
from .moments import InputMoments
from .options import check_options


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
        as_released: what to do as the released code, see the module `as_released`: some of
            `variance`, `queues` (not with n:m) and `skip-mlp`.
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
        # A list, e.g. from JSON, is kept as a tuple.
        if isinstance(self.as_released, list):
            object.__setattr__(self, "as_released", tuple(self.as_released))
        check_options(self)

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
        kind = (self.criterion, self.as_released)
        statistic = make_statistic(weight.shape[1], weight.device, *kind)
        statistic.update(activations)
        return masked_copy(weight, self.mask(weight, statistic, self.target))

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
        moments_of = partial(make_statistic, criterion=self.criterion, as_released=self.as_released)
        unrefined = unrefined_linears(list(targets), self.as_released)
        for block in walk(model, text, precision=self.precision, progress=progress, device=device):
            # Norms, sums s and variances v of the inputs, as the pruned blocks hand them on.
            for name, statistic in block.collect(moments_of).items():
                weight = weight_of(block.linears[name])
                refine = name not in unrefined
                apply_mask(weight, self.mask(weight, statistic, targets[name], refine))

    def mask(
        self, weight: torch.Tensor, statistic: InputMoments, pattern: Pattern, refine: bool = True
    ) -> torch.Tensor:
        """The mask of one weight, bool `[out, in]`, True where kept.

        Args:
            weight: `[out, in]`.
            statistic: moments of its inputs.
            pattern: what the mask holds.
            refine: False leaves the first mask as it is.
        """
        # The first mask: the lowest scores of each comparison group of the pattern go.
        scores = first_scores(self.criterion, weight, statistic)
        keep = keep_mask(scores, pattern)
        if not refine:
            return keep
        # Swaps, at most T in a row.
        return refine_mask(
            weight,
            keep,
            statistic,
            powered_variance=statistic.variance() ** self.variance_power,
            scores=scores,
            group=pattern.m if isinstance(pattern, NofM) else None,
            cycles=self.cycles,
            threshold=self.threshold,
            overshoot=self.overshoot,
            released_queues="queues" in self.as_released,
        )

"""OWL: blocks with more outliers lose less; another method prunes them to their rates.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to
High Sparsity (arXiv 2310.05175), section 3; official code luuyin/OWL at dddb7a4. See `allocation`
for the rates.

Differences from the official code: one dense pass measures the outliers (two there, of which the
second repeats the first); counts are exact, so that the model loses floor(weights * sparsity),
where the code rounds down in every row; mixed n:m meets its average by largest remainders, where
the code rounds each block. `exact=False` rounds as it does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ...errors import UserError
from ...models.anatomy import find_blocks
from ...sparsity.allocation import from_rates
from ...sparsity.patterns import NofM, Pattern, Unstructured, make_pattern
from ...validation import check_flag, check_number
from ..base import Method
from ..registry import make_method
from .outliers import outliers, owl_rates


@dataclass(frozen=True)
class OWL(Method):
    """Sparsity allocated to blocks by their outliers, on top of a method that prunes to given
    rates.

    Args:
        sparsity: fraction of the weights removed from all blocks together, in [0, 1).
        pattern: n:m instead, the average: blocks get patterns from n - 1 to n + 1 of m, or wider
            with `spread`.
        base: what prunes, by name: `wanda`, `sparsegpt`, `magnitude`, `ria` or `dsnot`.
        multiplier: M; a score is an outlier above M times the mean.
        spread: lambda; rates span 2 lambda. By default 0.08, or one weight of a group for n:m.
        by: one rate for each `block` (the paper's) or each `linear`.
        exact: meet the global count exactly; False rounds down in each row as the official code
            does.
        precision: of the forward passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option, or a base that takes no allocation.
    """

    sparsity: float | None = None
    pattern: str | None = None
    base: str = "wanda"
    multiplier: float = 5.0
    spread: float | None = None
    by: str = "block"
    exact: bool = True
    precision: str = "exact"

    paper: ClassVar[str | None] = "owl"
    sparsity_of: ClassVar[str | None] = "the weights of all linears in the blocks"

    def __post_init__(self):
        check_number("multiplier", self.multiplier)
        if self.spread is not None:
            check_number("spread", self.spread)
        if self.by not in ("block", "linear"):
            raise UserError(f"by {self.by!r} is unknown; use 'block' or 'linear'")
        check_flag("exact", self.exact)
        if not self.pruner.takes_allocation:
            raise UserError(
                f"base {self.base!r} takes no allocation; use a method that declares "
                "takes_allocation, e.g. 'wanda'"
            )

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, "model")

    def describe(self) -> str:
        """The pattern as a report states it."""
        return f"{self.target} on average" if isinstance(self.target, NofM) else str(self.target)

    @property
    def pruner(self):
        """The method object that prunes; its own sparsity is the average."""
        precision = {} if self.base == "magnitude" else {"precision": self.precision}
        return make_method(
            self.base, {"sparsity": self.sparsity, "pattern": self.pattern, **precision}
        )

    @torch.no_grad()
    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Measure the outliers of the dense model, then prune all linears of the decoder blocks in
        place.

        Args:
            calibration: int64 `[n, length]`.
            progress: label of a progress bar, None for none.
            device: where blocks compute, one at a time; None for where the model is.
        """
        named = {"progress": progress, "device": device}
        distribution = outliers(
            model, calibration, self.multiplier, by=self.by, precision=self.precision, **named
        )
        self.pruner.prune(model, calibration, targets=self.targets(model, distribution), **named)

    def rates(self, model, distribution: Mapping[str, float]) -> dict[str, float]:
        """Name of linear -> sparsity, from the outlier distribution `allocation.outliers`
        measured."""
        sizes = _sizes(model)
        n_of_m = isinstance(self.target, NofM)
        spread = self.spread if self.spread is not None else 1.0 if n_of_m else 0.08
        if n_of_m:
            spread /= self.target.m  # of weights of a group, so far
        values = [distribution[name] for name in sizes]
        return dict(
            zip(
                sizes,
                owl_rates(values, self.target.sparsity, spread, list(sizes.values())),
                strict=True,
            )
        )

    def targets(self, model, distribution: Mapping[str, float]) -> dict[str, Pattern]:
        """Name of linear -> its pattern, see `rates`."""
        rates = self.rates(model, distribution)
        if isinstance(self.target, NofM):
            blocks = [list(block.linears) for block in find_blocks(model)]
            units = blocks if self.by == "block" else [[name] for block in blocks for name in block]
            return _mixed(rates, units, _sizes(model), self.target)
        scope = self.pruner.target.scope
        if self.exact:
            return from_rates(model, rates, scope)
        return {name: Unstructured(rate or 0.01, scope) for name, rate in rates.items()}


def _sizes(model) -> dict[str, int]:
    return {
        name: x.weight.numel() for block in find_blocks(model) for name, x in block.linears.items()
    }


def _mixed(
    rates: Mapping[str, float],
    units: Sequence[Sequence[str]],
    sizes: Mapping[str, int],
    average: NofM,
):
    """Name of linear -> n:m: what a unit keeps of a group, rounded down, then one more for the
    largest remainders for as long as the mean over all weights does not exceed the average's n."""
    kept = np.array([average.m * (1 - rates[unit[0]]) for unit in units])
    share = np.array([sum(sizes[name] for name in unit) for unit in units]) / sum(sizes.values())
    n = np.floor(kept + 1e-9)
    for i in np.argsort(n - kept, kind="stable"):
        n[i] += share @ n + share[i] <= average.n + 1e-9
    if n.min() < 1 or n.max() >= average.m:
        raise UserError(
            f"spread leaves no weight of a group, or all {average.m}; use a smaller spread for "
            f"{average}"
        )
    return {
        name: NofM(int(count), average.m)
        for unit, count in zip(units, n, strict=True)
        for name in unit
    }

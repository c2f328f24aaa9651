"""OWL: blocks with more outliers lose less; another method prunes them to their rates.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to
High Sparsity (arXiv 2310.05175), section 3; official code luuyin/OWL at dddb7a4. `outliers` looks
at the blocks, `rates` makes sparsities of that, and `mixed_patterns` makes n:m of those.

Differences from the official code:

- One dense pass measures the outliers; there are two there, of which the second repeats the first.
- Counts are exact, so that the model loses floor(weights * sparsity), where the code rounds down in
  every row; `exact_count=False` rounds as it does.
- Mixed n:m meets its average by largest remainders, where the code rounds each block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...models.anatomy import find_blocks
from ...sparsity.allocation import from_rates, linear_sizes
from ...sparsity.patterns import NofM, Pattern, make_pattern
from ..base import Method
from ..registry import make_method
from .mixed_patterns import mixed_n_of_m
from .options import check_options
from .outliers import outliers
from .rates import owl_rates, rounded_down, spread_of


@dataclass(frozen=True)
class OWL(Method):
    """Sparsity allocated to blocks by their outliers, for a method that prunes to given rates.

    Args:
        sparsity: S, fraction of the weights removed from all blocks together, in [0, 1).
        pattern: n:m instead, the average: blocks get patterns from n - 1 to n + 1 of m, or wider
            with `spread`.
        base: name of the method that prunes; it takes an allocation, e.g. `wanda`.
        multiplier: M; a score is an outlier above M times the mean.
        spread: lambda; rates span 2 lambda. None for 0.08, or for one weight of a group of n:m.
        granularity: one rate for each `block` (the paper's) or each `layer` (linear).
        exact_count: meet the global count exactly; False rounds down in each row as the official
            code does.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option, or a base that takes no allocation.
    """

    sparsity: float | None = None
    pattern: str | None = None
    base: str = "wanda"
    multiplier: float = 5.0
    spread: float | None = None
    granularity: str = "block"
    exact_count: bool = True
    precision: str = "exact"

    paper: ClassVar[str | None] = "owl"
    sparsity_of: ClassVar[str | None] = "the weights of all linears in the blocks"

    def __post_init__(self):
        check_options(self)

    @property
    def target(self) -> Pattern:
        """The pattern of the whole model; for n:m the average."""
        return make_pattern(self.sparsity, self.pattern, "model")

    def describe(self) -> str:
        """What a report calls the pattern."""
        if isinstance(self.target, NofM):
            return f"{self.target} on average"
        return str(self.target)

    @property
    def pruner(self) -> Method:
        """The method object that prunes; its own sparsity is the average."""
        options = {"sparsity": self.sparsity, "pattern": self.pattern}
        # Magnitude reads no text, so that it has no precision.
        if self.base != "magnitude":
            options["precision"] = self.precision
        return make_method(self.base, options)

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Measure the outliers of the dense model, then prune its decoder blocks in place.

        Args:
            model: as for `Method.prune`, like `text`, `progress` and `device`.
        """
        # D of each block, from one pass through the dense model
        distribution = outliers(
            model,
            text,
            self.multiplier,
            granularity=self.granularity,
            precision=self.precision,
            progress=progress,
            device=device,
        )
        # S_l of each block, as the pattern of each linear
        targets = self.targets(model, distribution)
        # A second pass, through pruned blocks, by the base method
        self.pruner.prune(model, text, targets=targets, progress=progress, device=device)

    def rates(self, model: PreTrainedModel, distribution: Mapping[str, float]) -> dict[str, float]:
        """The sparsity of each linear.

        Args:
            model: the dense model.
            distribution: name of linear -> D, as `outliers` measures it.
        """
        sizes = linear_sizes(model)
        values = [distribution[name] for name in sizes]
        spread = spread_of(self.target, self.spread)
        rates = owl_rates(values, self.target.sparsity, spread, list(sizes.values()))
        return dict(zip(sizes, rates, strict=True))

    def targets(
        self, model: PreTrainedModel, distribution: Mapping[str, float]
    ) -> dict[str, Pattern]:
        """The pattern of each linear, for the same arguments as `rates`."""
        rates = self.rates(model, distribution)
        # n:m: the rate of a block or layer becomes the n of its pattern.
        if isinstance(self.target, NofM):
            units = [list(block.linears) for block in find_blocks(model)]
            if self.granularity == "layer":
                units = [[name] for name in rates]
            return mixed_n_of_m(rates, units, linear_sizes(model), self.target)
        # Unstructured: counts that sum to floor(weights * S), in the scope of the base method.
        scope = self.pruner.target.scope
        if self.exact_count:
            return from_rates(model, rates, scope)
        return rounded_down(rates, scope)

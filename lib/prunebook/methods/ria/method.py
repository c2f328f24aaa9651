"""RIA: relative importance and activations, compared over the whole matrix; channel permutation for
n:m.

Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models
(ICLR 2024); official code biomedical-cybernetics/Relative-importance-and-activation-pruning at
7bc55b0.

Differences from the official code: shares in float32 whatever the weights' dtype; exact counts,
ties lowest index first (the official threshold `<=` removes one weight more, and all ties); the
assignment's costs in closed form. `permute="each"` is the official simulation, an order for each
linear; `permute="fold"` moves the weights of a Llama-like model, so that the saved model holds the
pattern. The official SparseGPT sweep on the mask is left out.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ...criteria.ria import ria_factors, ria_score
from ...errors import UserError
from ...kernels.masking import apply_mask, masked_copy
from ...kernels.scores import Factors, factored_score
from ...passes.statistics import InputNorm
from ...sparsity.allocation import uniform
from ...sparsity.patterns import NofM, Pattern, keep_mask, make_pattern, prune_lowest
from ...validation import check_number
from ..scored import prune_by_score
from .fold_permutation import fold_permutations
from .permutation import keep_mask_permuted

_PERMUTE = ("none", "each", "fold")


@dataclass(frozen=True)
class RIA:
    """Pruning by a weight's share of its row and column and by its input; no weight update.

    Args:
        sparsity: fraction of the weights removed, in [0, 1).
        pattern: n:m instead, as '2:4'.
        exponent: a, the power of the input norms; 0 needs no data.
        scope: the comparison group: `layer` (the paper's) or `row`.
        permute: for n:m, `none`; `each` linear its own order of inputs, so that the pattern holds
            in that order only; `fold` orders into a Llama-like model, so that it holds as stored.
        precision: of the forward passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    exponent: float = 0.5
    scope: str = "layer"
    permute: str = "none"
    precision: str = "exact"

    paper: ClassVar[str] = "ria"
    needs_calibration: ClassVar[bool] = True
    takes_allocation: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Unstructured", "Semi-structured"],
        "criteria": ["RIA"],
        "weight": ["Frozen"],
    }

    def __post_init__(self):
        check_number("exponent", self.exponent, "a number >= 0, as 0.5")
        if getattr(self.target, "scope", None) == "model":
            raise UserError("scope 'model' is not allowed for ria; use 'layer' or 'row'")
        if self.permute not in _PERMUTE:
            raise UserError(
                f"permute {self.permute!r} is unknown; use {', '.join(map(repr, _PERMUTE))}"
            )
        if self.permute != "none" and not isinstance(self.target, NofM):
            raise UserError(
                f"permute {self.permute!r} orders inputs for n:m; give a pattern, as '2:4'"
            )

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, self.scope)

    @property
    def description(self) -> str:
        """The pattern as a report states it."""
        return f"{self.target}, inputs permuted" if self.permute == "each" else str(self.target)

    def score(self, weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """`ria_score` with this exponent: `[out, in]`."""
        return ria_score(weight, norm, self.exponent)

    @torch.no_grad()
    def prune_matrix(self, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The pruned copy of one weight `[out, in]`, given its inputs `[tokens, in]`; not for
        `permute="fold"`."""
        statistic = InputNorm(weight.shape[1], weight.device)
        statistic.update(inputs)
        return masked_copy(weight, self._select(self.score(weight, statistic.norm()), self.target))

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

        Raises:
            UserError: `permute="fold"` for an architecture that it does not know.
        """
        named = {"precision": self.precision, "progress": progress, "device": device}
        if self.permute == "fold":
            fold_permutations(model, calibration, self.score, self.target, **named)
        targets = targets or uniform(model, self.target)
        prune = self._prune_permuted if self.permute == "each" else prune_lowest
        prune_by_score(
            model,
            calibration,
            partial(ria_factors, exponent=self.exponent),
            targets,
            prune=prune,
            **named,
        )

    def _select(self, scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
        return (
            keep_mask_permuted(scores, pattern)
            if self.permute == "each"
            else keep_mask(scores, pattern)
        )

    def _prune_permuted(self, weight: torch.Tensor, factors: Factors, pattern: Pattern) -> None:
        apply_mask(weight, keep_mask_permuted(factored_score(weight, factors), pattern))

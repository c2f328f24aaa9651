"""RIA: relative importance and activations, compared over the whole matrix.

For n:m, channel permutation spreads important inputs over the groups (`permutation`,
`fold_permutation`).

Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models
(ICLR 2024); official code biomedical-cybernetics/Relative-importance-and-activation-pruning at
7bc55b0.

Differences from the official code:

- Shares are in float32 whatever the weights' dtype.
- Counts are exact and ties go lowest index first; the official threshold `<=` removes one weight
  more, and all ties.
- The assignment's costs are computed in closed form.
- `permute="each"` is the official simulation, an order for each linear. `permute="fold"` moves the
  weights of a Llama-like model, so that the saved model holds the pattern.
- The official SparseGPT update on the mask is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...criteria.ria import ria_score
from ...errors import UserError
from ...kernels.score import Score
from ...passes.statistics import InputNorm
from ...sparsity.patterns import NofM, Pattern, keep_mask
from ...validation import check_number
from ..base import ScoreMethod
from .fold_permutation import fold_permutations
from .permutation import keep_mask_permuted

_PERMUTE = ("none", "each", "fold")


@dataclass(frozen=True)
class RIA(ScoreMethod):
    """Pruning by a weight's share of its row and column and by its input.

    The remaining weights keep their values.

    Args:
        sparsity: fraction of the weights removed from each layer, in [0, 1).
        pattern: n:m instead, e.g. '2:4'.
        scope: the comparison group: `layer` (the paper's) or `row`.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
        exponent: power a of the input norms; 0 needs no data.
        permute: for n:m, `none`; `each` gives each linear its own order of inputs, so that the
            pattern holds in that order only; `fold` folds orders into a Llama-like model, so that
            it holds as stored.

    Raises:
        UserError: an impossible option.
    """

    scope: str = "layer"
    exponent: float = 0.5
    permute: str = "none"

    paper: ClassVar[str | None] = "ria"
    scopes: ClassVar[tuple[str, ...]] = ("layer", "row")

    def __post_init__(self):
        # Scope and pattern are checked as for every score method.
        super().__post_init__()
        check_number("exponent", self.exponent, "a number >= 0, e.g. 0.5")
        if self.permute not in _PERMUTE:
            allowed = ", ".join(map(repr, _PERMUTE))
            raise UserError(f"permute {self.permute!r} is unknown; use {allowed}")
        if self.permute != "none" and not isinstance(self.target, NofM):
            raise UserError(
                f"permute {self.permute!r} orders inputs for n:m; give a pattern, e.g. '2:4'"
            )

    def describe(self) -> str:
        """What a report calls the pattern."""
        if self.permute == "each":
            return f"{self.target}, inputs permuted"
        return str(self.target)

    def score(self, weight: torch.Tensor, inputs: InputNorm) -> Score:
        """`S_ij = (|W_ij| / sum_i' |W_i'j| + |W_ij| / sum_j' |W_ij'|) * ||X_j||_2^a`."""
        # the share of the column, plus the share of the row, times a power of the input norm
        return ria_score(weight, inputs.norm(), self.exponent)

    def mask(self, score: Score, pattern: Pattern) -> torch.Tensor:
        """What one linear keeps, bool `[out, in]`; for `permute="each"` in its own order."""
        # An order for each linear: the mask alone is permuted, and the weights stay.
        if self.permute == "each":
            return keep_mask_permuted(score.dense(), pattern)
        return keep_mask(score, pattern)

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
        """Fold channel orders in where asked, then prune as every score method does.

        Args:
            model: as for `ScoreMethod.prune`, like `text`, `targets`, `progress` and `device`.

        Raises:
            UserError: `permute="fold"` for an architecture that it does not know.
        """
        # The dense model is reordered once; its masks are then those of any score method.
        if self.permute == "fold":
            fold_permutations(
                model,
                text,
                lambda weight, norm: ria_score(weight, norm, self.exponent),
                self.target,
                precision=self.precision,
                progress=progress,
                device=device,
            )
        super().prune(model, text, targets=targets, progress=progress, device=device)

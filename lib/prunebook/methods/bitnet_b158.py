"""BitNet b1.58: linear layers with weights in -1, 0, 1 and 8-bit activations, to be trained from
the start.

Ma et al., The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits (arXiv 2402.17764);
training code and schedule are printed in the authors' FAQ (microsoft/unilm, bitnet, commit
768a3c8). The layer is `bitlinear.BitLinear`; the training is a step of its own, `finetune.full`,
for which the model keeps its latent weights.

Differences from the paper: a scale is bounded from below, as in the code, rather than increased by
an epsilon. Where norms go, their gains are multiplied into the weights: in a new model they are 1.
"""

from dataclasses import dataclass
from typing import ClassVar

from ..models.ternary import replace_linears
from ..validation import check_flag
from .base import Method


@dataclass(frozen=True)
class BitNetB158(Method):
    """Every linear inside the blocks becomes ternary; needs no data, but training: a model that was
    trained dense is of no use afterwards.

    Args:
        norm: as in the FAQ, every layer norms its own input and the norms before attention and MLP
            go; False leaves the norms of the model as they are, so that nothing but rounding
            changes it.

    Raises:
        UserError: an impossible option.
    """

    norm: bool = True

    paper: ClassVar[str | None] = "bitnet-b158"
    needs_calibration: ClassVar[bool] = False
    sparsity_of: ClassVar[str | None] = None

    def __post_init__(self):
        check_flag("norm", self.norm)

    def describe(self) -> str:
        """What a report calls the pattern: how many zeros there are follows from the weights."""
        return "ternary weights, 8-bit activations"

    def prune(self, model, calibration=None, progress: str | None = None, device=None) -> None:
        """Replace the linears in place; the other arguments are not used.

        Raises:
            UserError: a model without recognisable blocks, ternary already, or whose norms cannot
                be taken out.
        """
        replace_linears(model, self.norm)

"""BitNet b1.58: linears with weights in -1, 0, 1 and 8-bit activations, to be trained.

Ma et al., The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits (arXiv 2402.17764);
training code and schedule are printed in the authors' FAQ (microsoft/unilm, bitnet, commit
768a3c8). In place of `y = W x + b` a layer computes, after the norm of its input,

    y = gamma / s * (W_codes x_codes) + b
    W_codes = RoundClip(W / gamma, -1, 1)        gamma: mean magnitude of W (equations 1 to 3)
    x_codes = RoundClip(s x, -128, 127)          s: 127 / largest magnitude of the token's input

`models.ternary_linears.BitLinear` is that layer. Training is a step of its own
(`recovery.finetune.full`), for which the model keeps its latent weights W.

Differences from the paper:

- A scale is bounded from below, as in the FAQ's code, rather than increased by an epsilon.
- Where norms are taken out, their gains are multiplied into the weights; in a new model they are 1.

Beside microsoft/BitNet at 16da220, all 122,880 codes of random float32 weights, their packed bytes
and the codes of activations are equal, and beside the FAQ's layer for training, outputs and
gradients differ by less than 5e-7 of the largest; of bfloat16 weights, in whose dtype that code
rounds, 99.90 % of the codes are equal.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ..models.ternary import replace_linears
from ..validation import check_flag
from .base import Method


@dataclass(frozen=True)
class BitNetB158(Method):
    """Every linear inside the blocks becomes ternary; the model must then be trained.

    Needs no data itself. A model that was trained dense is of no use afterwards.

    Args:
        norm: True is the form of the FAQ: every layer norms its own input, and the norms before
            attention and MLP are taken out. False leaves the norms of the model as they are, so
            that nothing but rounding changes it.

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
        """The pattern as a report names it; how many zeros there are follows from the weights."""
        return "ternary weights, 8-bit activations"

    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor | None = None,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Replace the linears in place; text, progress and device are not used.

        Args:
            model: as for `Method.prune`.

        Raises:
            UserError: a model without recognisable blocks, ternary already, or whose norms cannot
                be taken out.
        """
        # Latent weights stay as they are: a `BitLinear` rounds them to -1, 0, 1 at every pass
        # (equations 1 to 3), and its input to 8 bits. Embeddings and head keep full precision.
        replace_linears(model, self.norm)

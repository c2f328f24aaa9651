"""Deeper Layers: cut out the one run of decoder blocks that turns the residual stream least.

Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers (ICLR 2025, arXiv 2403.17887),
equations 6 and 7; the authors released no code. Healing is a step of its own,
`recovery.finetune.lora`. The paper's simple heuristic, which removes the deepest blocks but the
last and reads no text, is `RemoveBlocks`.

The unofficial arcee-ai/PruneMe at faee6c9 gives the same distances, to 1e-7, and to 3e-5 at small
angles, where its arccos loses digits. It scores no run from the first block and takes the last
state after the final norm (`benchmarks/official/deeper_layers.py`).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...errors import UserError
from ...models.anatomy import find_blocks
from ...models.sizes import blocks_to_remove
from ...models.surgery import remove_blocks
from ...passes.precision import PRECISIONS
from ...validation import check_blocks, describe_blocks
from ..base import Method
from .angular import angular_distances, best_run, last_token_states


@dataclass(frozen=True)
class DeeperLayers(Method):
    """Removal of one contiguous run of decoder blocks; the other blocks keep their weights.

    Args:
        remove_blocks: number n of blocks that go.
        sparsity: fraction of the blocks that goes instead, in (0, 1), rounded down to whole blocks.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    remove_blocks: int | None = None
    sparsity: float | None = None
    precision: str = "exact"

    paper: ClassVar[str | None] = "deeper-layers"
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the blocks"

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            allowed = " or ".join(map(repr, PRECISIONS))
            raise UserError(f"precision {self.precision!r} is unknown; use {allowed}")
        check_blocks(self.remove_blocks, self.sparsity)

    def describe(self) -> str:
        """What a report calls the pattern."""
        return describe_blocks(self.remove_blocks, self.sparsity)

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Remove the blocks in place.

        Args:
            model: as for `Method.prune`, like `text`, `progress` and `device`.

        Raises:
            UserError: a count that the model does not allow, bad tokens, or states that are not
                finite.
        """
        # n, which must leave at least one block.
        total = len(find_blocks(model))
        count = blocks_to_remove(total, self.remove_blocks, self.sparsity, total - 1)
        # One pass gives the distance of every run (equation 7).
        states = last_token_states(
            model, text, precision=self.precision, progress=progress, device=device
        )
        distances = angular_distances(states)
        # The run of smallest distance (equation 6) goes; nothing is measured again.
        start = best_run(distances, count)
        remove_blocks(model, range(start, start + count))

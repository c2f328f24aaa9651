"""Deeper layers: cut out the run of blocks that turns the residual stream least.

Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers (ICLR 2025, arXiv 2403.17887),
equations 6 and 7; the authors released no code. Healing is a step of its own, `finetune.lora`; the
rival without data, the deepest blocks but the last, is `RemoveBlocks`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...errors import UserError
from ...models.anatomy import find_blocks
from ...models.sizes import count_blocks
from ...models.surgery import remove_blocks
from ...passes.precision import PRECISIONS
from ...validation import check_blocks, describe_blocks
from .angular import angular_distances, best_run, last_token_states


@dataclass(frozen=True)
class DeeperLayers:
    """One contiguous run of decoder blocks removed; no kept weight changes.

    Args:
        blocks: n, how many blocks go.
        sparsity: instead, the fraction of the blocks that goes, in (0, 1), rounded down to whole
            blocks.
        precision: of the forward passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    blocks: int | None = None
    sparsity: float | None = None
    precision: str = "exact"

    paper: ClassVar[str] = "deeper-layers"
    needs_calibration: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Structured-Depth"],
        "criteria": ["Angular Distance"],
        "budget": ["Layer Numbers"],
    }

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise UserError(
                f"precision {self.precision!r} is unknown; use {' or '.join(map(repr, PRECISIONS))}"
            )
        check_blocks(self.blocks, self.sparsity)

    @property
    def description(self) -> str:
        """What the report calls the pattern."""
        return describe_blocks(self.blocks, self.sparsity)

    @torch.no_grad()
    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Remove the blocks in place.

        Args:
            calibration: int64 `[n, length]`.
            progress: label of a progress bar, None for none.
            device: where blocks compute, one at a time; None for where the model is.

        Raises:
            UserError: a count that the model does not allow, bad tokens, or states that are not
                finite.
        """
        total = len(find_blocks(model))
        count = count_blocks(total, self.blocks, self.sparsity, total - 1)
        states = last_token_states(
            model, calibration, precision=self.precision, progress=progress, device=device
        )
        start = best_run(angular_distances(states), count)
        remove_blocks(model, range(start, start + count))

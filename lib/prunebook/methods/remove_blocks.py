"""Remove the decoder blocks that the user names.

No paper stands behind this method. It serves choices of one's own, and the simple rivals that
methods are compared with, e.g. "the deepest blocks but the last" of Deeper Layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.surgery import remove_blocks
from ..validation import is_whole
from .base import Method


@dataclass(frozen=True)
class RemoveBlocks(Method):
    """Removal of whole decoder blocks; the weights of the other blocks do not change.

    Args:
        indices: numbers of the blocks, from 0, e.g. `[20, 21]`.

    Raises:
        UserError: `indices` is no collection of whole numbers, or it is empty.
    """

    indices: tuple[int, ...] = ()

    paper: ClassVar[str | None] = None
    needs_calibration: ClassVar[bool] = False
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = None

    def __post_init__(self):
        numbers = ()
        if isinstance(self.indices, Iterable) and not isinstance(self.indices, str):
            numbers = tuple(self.indices)
        if not numbers or not all(is_whole(number) for number in numbers):
            raise UserError(
                f"indices {self.indices!r} is not allowed for remove-blocks; use whole numbers, "
                "e.g. [20, 21]"
            )
        # A tuple, whatever was given, so that the method is as frozen as the others.
        object.__setattr__(self, "indices", numbers)

    def describe(self) -> str:
        """What a report calls the pattern."""
        return f"{len(set(self.indices))} blocks"

    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor | None = None,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Remove the blocks in place; text, progress and device are not used.

        Args:
            model: as for `Method.prune`.

        Raises:
            UserError: a number that is no block, or no block would be left.
        """
        remove_blocks(model, self.indices)

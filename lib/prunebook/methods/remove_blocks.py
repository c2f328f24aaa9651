"""Remove the decoder blocks that the user names: for choices of one's own, and for rivals of
methods that choose."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..errors import UserError
from ..models.surgery import remove_blocks


@dataclass(frozen=True)
class RemoveBlocks:
    """Whole decoder blocks removed; no kept weight changes.

    Args:
        indices: the blocks by number from 0, as `[20, 21]`.

    Raises:
        UserError: anything else.
    """

    indices: tuple[int, ...] = ()

    paper: ClassVar[str] = "deeper-layers"
    needs_calibration: ClassVar[bool] = False
    makes_smaller: ClassVar[bool] = True
    facets: ClassVar[dict] = {"type": ["Structured-Depth"], "budget": ["Layer Numbers"]}

    def __post_init__(self):
        given = self.indices
        whole = isinstance(given, Iterable) and not isinstance(given, str)
        object.__setattr__(self, "indices", tuple(given) if whole else ())
        if not self.indices or not all(type(index) is int for index in self.indices):
            raise UserError(
                f"indices {given!r} is not allowed for remove-blocks; use whole numbers, as [20, "
                "21]"
            )

    @property
    def description(self) -> str:
        """What the report calls the pattern."""
        return f"{len(set(self.indices))} blocks"

    def prune(self, model, calibration=None, progress: str | None = None, device=None) -> None:
        """Remove the blocks in place; the other arguments are not used.

        Raises:
            UserError: a number that is no block, or none would be left.
        """
        remove_blocks(model, self.indices)

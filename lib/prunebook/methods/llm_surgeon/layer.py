"""One linear during a shot: how some of its rows, columns or entries are removed from it.

van der Ouderaa et al., The LLM Surgeon (arXiv 2312.17244); official code
Qualcomm-AI-research/llm-surgeon at 7267344. `study` makes the object, and `removal` has the updates
of what stays.
"""

from dataclasses import dataclass

import torch

from ...kernels.masking import apply_mask
from ...models.anatomy import weight_of
from .fisher import part_of
from .removal import remove_elements, remove_rows_columns

# Entries that are correlated with each other, as in the official scripts for entries and 2:4.
_CORRELATED_ENTRIES = 2000


@dataclass
class Layer:
    """A linear with the costs of its parts and the inverse factors of what is alive in it.

    linear: the module.
    W: its weight, float32 `[R, C]`; where there is a bias, with it as one more column.
    rows: int64 indices of the rows that are alive.
    columns: int64 indices of the columns of W that are alive.
    inverses: `G^-1` and `A^-1` of the living part; None where nothing makes up for what goes.
    costs: those of rows `[R]` and columns `[C]`, or of entries `[R, C]`; the lowest go first.
    """

    linear: torch.nn.Module
    W: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    inverses: tuple[torch.Tensor, torch.Tensor] | None = None
    costs: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def living(self) -> torch.Tensor:
        """The living part of W."""
        return part_of(self.W, self.rows, self.columns)

    def remove(
        self,
        parts: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        max_correlate: int | None,
    ) -> None:
        """Remove what was chosen by the costs, for good.

        Args:
            parts: bool `[R, C]` for entries, or `[R]` and `[C]` for rows and columns.
            max_correlate: entries, or rows, or columns, that are updated as one group; None for
                2,000 entries, and all rows and columns jointly.
        """
        if isinstance(parts, torch.Tensor):
            self.remove_entries(parts, max_correlate or _CORRELATED_ENTRIES)
        else:
            self.remove_rows_columns(*parts, max_correlate)

    def remove_rows_columns(
        self, rows: torch.Tensor, columns: torch.Tensor, max_correlate: int | None
    ) -> None:
        """Remove rows and columns of the linear for good.

        Args:
            rows: bool `[R]`; a row takes its bias along.
            columns: bool `[C]`.
            max_correlate: as for `removal.remove_rows_columns`.
        """
        # No bias is a candidate: as a column it stays.
        all_columns = self.W.new_zeros(self.W.shape[1], dtype=torch.bool)
        all_columns[: len(columns)] = columns
        removed = rows[:, None] | all_columns
        if not removed.any():
            return
        # W' = P_G W P_A of the living part
        if self.inverses is not None:
            updated = remove_rows_columns(
                self.living,
                *self.inverses,
                rows[self.rows].nonzero().flatten(),
                all_columns[self.columns].nonzero().flatten(),
                max_correlate,
            )
            self.W[self.rows[:, None], self.columns] = updated
        self._write(removed)

    def remove_entries(self, entries: torch.Tensor, max_correlate: int) -> None:
        """Remove entries of the linear for good.

        Args:
            entries: bool `[R, C]`.
            max_correlate: as for `removal.remove_elements`.
        """
        removed = torch.zeros_like(self.W, dtype=torch.bool)
        removed[:, : entries.shape[1]] = entries
        if not removed.any():
            return
        # W' = W - G^-1 V A^-1 of the living part, group by group
        if self.inverses is not None:
            of_living = removed[self.rows][:, self.columns]
            updated = remove_elements(self.living, *self.inverses, of_living, max_correlate)
            self.W[self.rows[:, None], self.columns] = updated
        self._write(removed)

    def _write(self, removed: torch.Tensor) -> None:
        """Set what is removed to zero, and write W back into the linear."""
        apply_mask(self.W, ~removed)
        weight = weight_of(self.linear)
        weight.copy_(self.W[:, : weight.shape[1]])
        if self.linear.bias is not None:
            self.linear.bias.data.copy_(self.W[:, -1])

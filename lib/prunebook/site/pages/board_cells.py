"""What the leaderboard says of a row: its perplexity, and whether it ties with the best."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ...notebook.gaps import gap
from .board_rows import Board, BoardRow
from .figures import half_width


def marks(rows: Sequence[BoardRow]) -> dict[int, str]:
    """Index of a row -> how it compares with the best of its level and calibration.

    It is `best`, `tie`, `worse`, or `few draws` where fewer than three draws can be paired. The
    comparison is the paired test on the losses by window; rows without them get no mark. What reads
    no text is compared with those that read the text which most rows have read.

    Args:
        rows: rows of one board and kind.
    """
    levels: dict[str, dict[Any, list[int]]] = {}
    for index, row in enumerate(rows):
        if not row.is_dense and row.perplexities and row.losses:
            by_text = levels.setdefault(row.level, {})
            by_text.setdefault(row.cells.get("calibration"), []).append(index)
    made: dict[int, str | None] = {}
    for by_text in levels.values():
        without = by_text.pop(None, [])
        # The largest group comes last, and what it says of rows without calibration stays.
        for group in sorted(by_text.values(), key=len) or [[]]:
            made |= _marks_of_group(rows, [*group, *without])
    return {index: word for index, word in made.items() if word}


def _marks_of_group(rows: Sequence[BoardRow], indices: Sequence[int]) -> dict[int, str | None]:
    """The marks of rows that are compared with each other, None where the test cannot say.

    Args:
        rows: all rows.
        indices: which of them are compared; one alone gets no mark.
    """
    if len(indices) < 2:
        return {}
    best = min(indices, key=lambda index: np.mean(rows[index].losses))
    made: dict[int, str | None] = {}
    for index in indices:
        made[index] = "best"
        if index != best:
            made[index] = _against(rows[best], rows[index])
    return made


def _against(best: BoardRow, other: BoardRow) -> str | None:
    """What the test says of a row beside the best, see `marks`; None where it cannot say."""
    lower = np.asarray(best.losses)
    higher = np.asarray(other.losses)
    if lower.shape[1] != higher.shape[1]:
        return None
    # What depends on no draw stands beside each draw of the other; draws are paired with draws.
    if not best.is_drawn:
        lower = np.repeat(lower, len(higher), axis=0)
    if not other.is_drawn:
        higher = np.repeat(higher, len(lower), axis=0)
    draws = min(len(lower), len(higher))
    drawn = best.is_drawn or other.is_drawn
    compared = gap(lower[:draws], higher[:draws], drawn=drawn)
    if compared.refusal:
        return None
    if compared.this_draw_only:
        return "few draws"
    return {"holds": "worse", "tie": "tie", "fails": "tie"}[compared.verdict]


def shown_perplexity(perplexity: float | None, vocabulary: int) -> Any:
    """A perplexity for a cell: the number, or `broken` above the size of the vocabulary."""
    if perplexity is None or perplexity <= vocabulary:
        return perplexity
    words = f"worse than guessing among {vocabulary:,} words"
    return Markup('<span class="pb-broken" title="{}">broken</span>').format(words)


def shown_cells(row: BoardRow, board: Board) -> dict[str, Any]:
    """The cells of a row as the board shows them: perplexity, interval and ratio to dense.

    Args:
        row: the row.
        board: its board.
    """
    perplexity = row.cells.get("perplexity")
    cells = {name: value for name, value in row.cells.items() if name != "perplexity_ratio"}
    if perplexity is None:
        return cells
    cells["perplexity"] = shown_perplexity(perplexity, board.vocabulary)
    if perplexity <= board.vocabulary:
        # Draws that all gave the same cut say nothing of how draws differ.
        if len(set(row.perplexities)) > 1:
            cells["half_width"] = half_width(row.perplexities)
        if board.dense:
            cells["perplexity_ratio"] = perplexity / board.dense
    return cells

"""What the leaderboard says of a row: its perplexity, and whether it ties with the best."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ...notebook.gaps import gap
from .board_rows import Board, BoardRow
from .figures import half_width


def marks(rows: Sequence[BoardRow]) -> dict[int, str]:
    """Index of a row -> how it compares with the best of its level.

    It is `best`, `tie`, `worse`, or `one draw` where both were measured in a single draw. The
    comparison is the paired test on the losses by window; rows without them get no mark.

    Args:
        rows: rows of one board and kind.
    """
    levels: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if not row.is_dense and row.perplexities and row.losses:
            levels.setdefault(row.level, []).append(index)
    made = {}
    for indices in levels.values():
        best = min(indices, key=lambda index: np.mean(rows[index].losses))
        if len(indices) == 1:
            continue
        made[best] = "best"
        for index in indices:
            word = _against(rows[best].losses, rows[index].losses)
            if index != best and word:
                made[index] = word
    return made


def _against(best: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> str | None:
    """What the test says of losses beside the best, see `marks`; None where it cannot say."""
    if len(best[0]) != len(other[0]):
        return None
    # What has no draw is measured once, and stands beside each draw of the other.
    draws = min(len(best), len(other))
    if draws == 1:
        draws = max(len(best), len(other))
    lower = np.broadcast_to(np.asarray(best[:draws]), (draws, len(best[0])))
    higher = np.broadcast_to(np.asarray(other[:draws]), (draws, len(best[0])))
    compared = gap(lower, higher)
    if compared.refusal:
        return None
    if compared.this_draw_only:
        return "one draw"
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
        if len(row.perplexities) > 1:
            cells["half_width"] = half_width(row.perplexities)
        if board.dense:
            cells["perplexity_ratio"] = perplexity / board.dense
    return cells

"""The rows of the leaderboard: what may stand in one table, and means of draws."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...notebook.tables import is_number
from ...runs.quick_rows import MACHINE_COLUMNS

# What two rows must share to stand in one table; the rest of a protocol is told in the row.
_SHARED = ("model", "dtype", "evaluation", "evaluation_precision", "vocabulary")
_IN_ROW = ("calibration", "cache", "device")
# What makes two averaged rows the same measurement, whichever notebook made it.
_IDENTITY = ("method", "pattern", "sparsity", "perplexity", "calibration", "cache", "device")
_DENSE_AGREES = 1e-3  # two dense models whose perplexities differ by more are not one protocol
_VOCABULARIES = {"smollm2-135m": 49_152, "gemma3-270m": 262_144}
_USUAL_VOCABULARY = 50_000  # where neither the row nor its protocol names the model's
KINDS = {
    "weights": "Weights",
    "structures": "Blocks, heads, neurons and hidden channels",
    "caches": "Key-value caches",
    "ternary": "Ternary weights",
}
DENSE = ("dense", "plain")  # what tables call the model before pruning, or with its whole cache
# methods that read no calibration text, whatever the protocol of their table names
_READ_NO_TEXT = (*DENSE, "magnitude", "remove-blocks")
_STRUCTURE_WORDS = re.compile(r"\b(blocks|heads|neurons|hidden|columns)\b")


@dataclass(frozen=True)
class BoardRow:
    """What one method measured in all its draws.

    Attributes:
        cells: column -> value; numbers are means over the draws.
        papers: slugs of the papers whose notebooks measured it.
        kind: a key of `KINDS`.
        level: rows of one level may be compared, e.g. `50 %` or `2:4`.
        perplexities: one for each draw.
        losses: mean loss of each draw and window, `[draws][windows]`; empty where unknown.
    """

    cells: dict[str, Any]
    papers: tuple[str, ...]
    kind: str
    level: str
    perplexities: tuple[float, ...] = ()
    losses: tuple[tuple[float, ...], ...] = ()

    @property
    def is_dense(self) -> bool:
        """Whether the row is of the model before pruning."""
        return self.cells.get("method") in DENSE

    @property
    def is_drawn(self) -> bool:
        """Whether the row depends on a draw, of which it may have one or several."""
        return len(self.losses) > 1 or bool(self.cells.get("seeds"))

    @property
    def name(self) -> str:
        """The method's name, or the label of what has none."""
        return str(self.cells.get("method") or self.cells.get("label"))


@dataclass
class Board:
    """What may be compared: the same model, text, windows and precision, one dense model.

    Attributes:
        protocol: what all rows share.
        dense: perplexity of the dense model; None where no table has it.
        rows: the rows of all papers.
    """

    protocol: dict[str, Any]
    dense: float | None
    rows: list[BoardRow] = field(default_factory=list)

    @property
    def vocabulary(self) -> int:
        """Number of words: a perplexity above it is worse than guessing."""
        size = self.protocol.get("vocabulary") or _VOCABULARIES.get(self.protocol.get("model"))
        return size or _USUAL_VOCABULARY


def boards(measured: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Board]:
    """Slug and table of each measurement -> the boards, the one with most rows first.

    Args:
        measured: slug of the paper, and a table as a notebook's outputs hold it.
    """
    made: dict[str, list[Board]] = {}
    for slug, table in measured:
        protocol = table["protocol"]
        shared = {name: protocol[name] for name in _SHARED if name in protocol}
        alike = made.setdefault(json.dumps(shared, sort_keys=True), [])
        board = _fitting(alike, shared, _dense_of(table))
        board.rows += _rows(slug, table, board)
    together = []
    for alike in made.values():
        together += [_merged(board) for board in alike]
    return sorted(together, key=lambda board: -len(board.rows))


def _dense_of(table: Mapping[str, Any]) -> float | None:
    """The perplexity of the dense model in a table, if it has one."""
    for row in table["rows"]:
        if row.get("method") in DENSE and row.get("perplexity"):
            return row["perplexity"]
    return None


def _fitting(alike: list[Board], shared: dict[str, Any], dense: float | None) -> Board:
    """The board of a protocol with this dense model; a new one where none fits."""
    for board in alike:
        if dense is None or board.dense is None:
            board.dense = board.dense or dense
            return board
        if abs(dense - board.dense) <= _DENSE_AGREES * board.dense:
            return board
    alike.append(Board(shared, dense))
    return alike[-1]


def _rows(slug: str, table: Mapping[str, Any], board: Board) -> Iterator[BoardRow]:
    """The rows of a table, one for all draws of a method."""
    protocol = table["protocol"]
    in_row = {name: protocol[name] for name in _IN_ROW if name in protocol}
    in_row |= {name: table[name] for name in ("date", "commit") if table.get(name)}
    dense_parameters = max((row.get("parameters") or 0 for row in table["rows"]), default=0)
    # Draws of one method agree in all texts and in the sparsity, but for its last digits.
    draws: dict[tuple, list[Mapping]] = {}
    for row in table["rows"]:
        texts = {name: value for name, value in row.items() if isinstance(value, str)}
        draws.setdefault((*texts.items(), round(row.get("sparsity") or 0, 3)), []).append(row)
    for group in draws.values():
        kind = _kind(group[0], dense_parameters)
        perplexities = tuple(row["perplexity"] for row in group if row.get("perplexity"))
        cells = {**dict(_mean([_idle(row) for row in group])), **in_row}
        if group[0].get("method") in _READ_NO_TEXT:
            cells.pop("calibration", None)
        losses = table.get("losses", {}).get(group[0].get("label"), [])
        if len(losses) != len(group):
            losses = []
        yield BoardRow(
            cells,
            (slug,),
            kind,
            _level({**in_row, **group[0]}, kind),
            perplexities,
            tuple(tuple(draw) for draw in losses),
        )


def _idle(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without times and memory unless its machine is known to have been idle."""
    kept = dict(row)
    if row.get("machine_busy") is not False:
        kept = {name: value for name, value in row.items() if name not in MACHINE_COLUMNS}
    kept.pop("machine_busy", None)
    return kept


def _kind(row: Mapping[str, Any], dense_parameters: int) -> str:
    """What was removed, a key of `KINDS`."""
    pattern = str(row.get("pattern") or "")
    if row.get("sparsity") is None:
        return "caches"
    if "ternary" in pattern:
        return "ternary"
    if (row.get("parameters") or dense_parameters) < dense_parameters:
        return "structures"
    if _STRUCTURE_WORDS.search(pattern):
        return "structures"
    return "weights"


def _level(row: Mapping[str, Any], kind: str) -> str:
    """What rows must share to be compared: the n:m pattern, or the sparsity in per cent."""
    n_of_m = re.match(r"\d+:\d+", str(row.get("pattern") or ""))
    if n_of_m:
        return n_of_m[0]
    if kind == "caches":
        return str(row.get("budget") or row.get("cache") or "")
    return f"{100 * row['sparsity']:.0f} %"


def _mean(group: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Name and value of each column of the row that stands for a group of draws."""
    names = {}
    for row in group:
        names |= dict.fromkeys(row)
    for name in names:
        values = [row[name] for row in group if row.get(name) is not None]
        if name == "seed":
            yield "seeds", len(set(values)) or None
        elif values and all(map(is_number, values)):
            mean = sum(values) / len(values)
            if all(isinstance(value, int) for value in values):
                mean = round(mean)
            yield name, mean
        elif values and all(value == values[0] for value in values):
            yield name, values[0]
        else:
            yield name, None


def _merged(board: Board) -> Board:
    """The board with one row for what several notebooks measured alike, and one dense row."""
    same: dict[str, list[BoardRow]] = {}
    for row in board.rows:
        identity = "dense"
        if not row.is_dense:
            identity = json.dumps([_rounded(row.cells.get(name)) for name in _IDENTITY])
        same.setdefault(identity, []).append(row)
    rows = []
    for group in same.values():
        papers = {}
        for row in group:
            papers |= dict.fromkeys(row.papers)
        # Notebooks differ in what they measured beside the perplexity.
        first = max(group, key=lambda row: sum(cell is not None for cell in row.cells.values()))
        rows.append(
            BoardRow(
                first.cells,
                tuple(papers),
                first.kind,
                first.level,
                first.perplexities,
                next((row.losses for row in group if row.losses), ()),
            )
        )
    return Board(board.protocol, board.dense, rows)


def _rounded(value: Any) -> Any:
    """A number to four digits, so that last bits do not tell two measurements apart."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value

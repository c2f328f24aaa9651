"""Whether the built pages agree: on one verdict for a claim, and one number for a measurement.

The pages are read as a reader sees them. So all places that tell of the same thing are compared,
however their texts were made.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bs4 import BeautifulSoup, SoupStrainer, Tag

from .pages.board_rows import DENSE

# What a measurement depends on, as tables and the lines below them name it.
_PROTOCOL = ("model", "dtype", "evaluation precision", "evaluation", "calibration", "cache")
_COLUMNS = ("Method", "Pattern", "Sparsity", "Budget")
# what the class of a claim's box has, among others
_BOX = re.compile(r"\bpb-claim\b")
_NUMBER = re.compile(r"[\d,]+(\.\d+)?")
# Other threads and other processors move a perplexity by less.
_RELATIVE = 0.01


def disagreements(html: Path) -> list[str]:
    """What two places of the built site tell differently, one line each.

    Args:
        html: the folder of the built site.
    """
    lines = _differing_verdicts(html)
    shown: dict[tuple, list[_Shown]] = {}
    for path in sorted(html.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        if "pb-results" in text:
            where = path.relative_to(html).with_suffix("").as_posix()
            for number in _numbers(where, text):
                shown.setdefault(number.key, []).append(number)
    for same in shown.values():
        lines += _differing_numbers(same)
    return lines


@dataclass
class _Shown:
    """What one table says of one measurement.

    Attributes:
        key: what was measured and how.
        where: the page, and which of its tables it is.
        perplexities: one for each row, e.g. for each draw.
    """

    key: tuple[str, ...]
    where: str
    perplexities: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The mean of the draws."""
        return math.fsum(self.perplexities) / len(self.perplexities)


def _numbers(where: str, text: str) -> Iterator[_Shown]:
    """The perplexities of a page, those of a method's draws together."""
    wanted = SoupStrainer(["table", "p"])
    page = BeautifulSoup(text, "html.parser", parse_only=wanted)
    for count, table in enumerate(page.select("table.pb-results"), start=1):
        rows = list(_rows(table))
        if not rows:
            continue  # e.g. a table of errata, which has no protocol
        # The line with the protocol follows its table.
        protocol = _protocol(table.find_next("p", class_="pb-protocol").get_text())
        found: dict[tuple, _Shown] = {}
        for cells in rows:
            key = _key(cells, protocol)
            shown = found.setdefault(key, _Shown(key, f"{where}, table {count}"))
            shown.perplexities.append(float(cells["Perplexity"].replace(",", "")))
        yield from found.values()


def _protocol(line: str) -> dict[str, str]:
    """Name -> value of what a protocol's line says, of the names that count here."""
    values: dict[str, str] = {}
    for part in line.split(" · "):
        name = next((name for name in _PROTOCOL if part.startswith(f"{name} ")), None)
        if name is not None:
            values.setdefault(name, part.removeprefix(f"{name} "))
    return values


def _rows(table: Tag) -> Iterator[dict[str, str]]:
    """The rows of a table that have a perplexity as a number: heading -> text."""
    headings = [cell.get_text() for cell in table.select("thead th")]
    for row in table.select("tbody tr"):
        cells = dict(zip(headings, (cell.get_text() for cell in row.select("td")), strict=True))
        if _NUMBER.fullmatch(cells.get("Perplexity", "")):
            yield cells


def _key(cells: dict[str, str], protocol: dict[str, str]) -> tuple[str, ...]:
    """What a row measured and how. Dense models and magnitude pruning read no calibration."""
    measured = {name: protocol.get(name, "") for name in _PROTOCOL}
    measured |= {name: cells.get(name, "") for name in _COLUMNS}
    # Some tables have these as columns, e.g. those of the leaderboard.
    for name in ("calibration", "cache"):
        if cells.get(name.title(), "–") != "–":
            measured[name] = cells[name.title()]
    if measured["Method"] in DENSE:
        measured |= {"Pattern": "", "Sparsity": "", "calibration": ""}
    if measured["Method"].startswith("Magnitude"):
        measured["calibration"] = ""
    return tuple(measured.values())


def _differing_numbers(same: Iterable[_Shown]) -> list[str]:
    """Lines for the places that show another number than the first one for the same thing."""
    first, *others = same
    lines = []
    for other in others:
        if not math.isclose(first.mean, other.mean, rel_tol=_RELATIVE):
            what = ", ".join(filter(None, first.key))
            lines.append(
                f"{what}: perplexity {first.mean:.2f} on {first.where}, {other.mean:.2f} on "
                f"{other.where}"
            )
    return lines


def _differing_verdicts(html: Path) -> list[str]:
    """Lines for claims whose box, row of the scoreboard and entry of the catalogue differ."""
    catalog = json.loads((html / "catalog.json").read_text(encoding="utf-8"))
    board = _parsed(html / "scoreboard.html", SoupStrainer("tr"))
    lines = []
    for entry in catalog["papers"]:
        slug = entry["slug"]
        rows = {}
        for row in board.select(f'tr[data-paper="{slug}"]'):
            statement = row.select("td")[2].get_text()
            rows[_words(statement)] = row["data-verdict"]
        page = _parsed(html / "papers" / f"{slug}.html", SoupStrainer("section", _BOX))
        boxes = {
            _words(box.select_one(".pb-statement").get_text()): _verdict_of(box)
            for box in page.select("section.pb-claim")
        }
        for outcome in entry["outcomes"]:
            statement = _words(outcome["statement"])
            told = {
                "catalog.json": outcome["verdict"],
                "the scoreboard": rows.get(statement, "nothing"),
                "its page": boxes.get(statement, "nothing"),
            }
            if len(set(told.values())) > 1:
                parts = ", ".join(f"{place} has {verdict}" for place, verdict in told.items())
                lines.append(f"papers/{slug}: claim {outcome['key']!r}: {parts}")
    return lines


def _parsed(page: Path, wanted: SoupStrainer) -> BeautifulSoup:
    """The wanted elements of a page; reading all of them takes several times as long."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser", parse_only=wanted)


def _verdict_of(box: Tag) -> str:
    """The verdict that a claim's box shows."""
    style = next(name for name in box["class"] if name != "pb-claim")
    return style.removeprefix("pb-").replace("-", "_")


def _words(text: str) -> str:
    """A text with single spaces."""
    return " ".join(text.split())

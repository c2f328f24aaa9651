"""Text generated from the records: the README's table of papers and the challenge page's notes."""

import html
import re
from collections.abc import Mapping, Sequence
from itertools import groupby

from ..errors import UserError
from ..notebook.tables import VERDICTS
from .reader import Paper, challenge_note
from .schema import Record

LONGEST_ROW = 250  # characters of a paper's row
_HEADER = "| Paper | Venue | Tags | Claims | Page | Code |\n|:--|:--|:--|:--|:--|:--|"
_TAGS = ("type", "criteria")  # facets that a row has room for; the site shows them all


def papers_table(
    readme: str, papers: Sequence[Paper], counts: Mapping[str, Mapping[str, int]] | None = None
) -> str:
    """The README with the table of the papers between its `papers` markers.

    Args:
        readme: the README as it is.
        papers: the papers, in the order of the table.
        counts: slug -> verdict -> number of the paper's own claims; None: none is known.

    Raises:
        UserError: the markers are missing.
    """
    sections = []
    for year, group in _by_year(papers):
        rows = [table_row(paper.record, (counts or {}).get(paper.slug, {})) for paper in group]
        sections.append(f"### {year}\n\n" + "\n".join([_HEADER, *rows]))
    return _between(readme, "papers", sections, "README.md")


def challenge_notes(page: str, papers: Sequence[Paper]) -> str:
    """The challenge page with the papers' notes between its `notes` markers.

    Args:
        page: the page as it is.
        papers: the papers, in the order of the page.

    Raises:
        UserError: the markers are missing, or a notebook has no challenge cell.
    """
    sections = [
        "\n\n".join([f"## {year}", *(_note(paper) for paper in group)])
        for year, group in _by_year(papers)
    ]
    return _between(page, "notes", sections, "challenge/challenge.md")


def table_row(record: Record, counts: Mapping[str, int] | None = None) -> str:
    """The paper's row of the README table.

    Where the row would be too long, the short name stands for the title, then the criteria are
    left out, and at last all types but the first.

    Args:
        record: the paper's record.
        counts: verdict -> number of the paper's own claims; None: none is known.
    """
    claims = " ".join(
        f"{symbol}{counts[verdict]}"
        for verdict, (symbol, _) in VERDICTS.items()
        if counts and counts.get(verdict)
    )
    claims = claims or "–"
    tags = [", ".join(record.facets()[name].values) for name in _TAGS]
    first, _, others = tags[0].partition(", ")
    if others:
        first += ", …"
    rows = (
        _row(record, record.title, "; ".join(tags), claims),
        _row(record, record.short, "; ".join(tags), claims),
        _row(record, record.short, tags[0], claims),
        _row(record, record.short, first, claims),
    )
    return next((row for row in rows if len(row) <= LONGEST_ROW), rows[-1])


def _row(record: Record, title: str, tags: str, claims: str) -> str:
    """A row: title, venue, tags, counts of claims, page and code."""
    paper = _cell(title)
    if record.url:
        paper = _link(title, record.url)
    venue = f"{record.venue.name} {record.venue.year}"
    if record.venue.kind not in ("conference", "journal"):
        venue += f" ({record.venue.kind})"
    page = _link("page", f"papers/{record.slug}.ipynb")
    if not record.is_implemented:
        page += ", not run yet"
    cells = (paper, _cell(venue), tags, claims, page, _code(record))
    return f"| {' | '.join(cells)} |"


def _code(record: Record) -> str:
    if record.code is None:
        return "none"
    kind = {True: "official", False: "community"}[record.code.official]
    return _link(kind, record.code.url)


def _note(paper: Paper) -> str:
    """The note under its heading, with the anchor for MyST and for plain HTML (as on GitHub)."""
    anchor = paper.record.challenge
    text = re.sub(r"\A#{1,6}[ \t][^\n]*\n*", "", challenge_note(paper.path).strip())
    heading = as_markdown(paper.record.heading)
    return f'<a id="{anchor}"></a>\n\n({anchor})=\n### {heading}\n\n{text}'.rstrip()


def _by_year(papers: Sequence[Paper]):
    return groupby(papers, key=lambda paper: paper.record.year)


def _between(text: str, name: str, sections: Sequence[str], file: str) -> str:
    """`text` with `sections` between its markers, in place of what stood there."""
    begin = f"<!-- {name}:begin -->"
    end = f"<!-- {name}:end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise UserError(f"{file}: needs the markers {begin} and {end}, in this order")
    return "\n\n".join([before + begin, *sections, end + after])


def as_markdown(text: str) -> str:
    """`text` on one line, with what markdown or HTML would take for markup escaped."""
    return re.sub(r"([\\`*_~\[\]$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _cell(text: str) -> str:
    """`text` for a table cell."""
    return as_markdown(text).replace("|", r"\|")


def _link(label: str, url: str) -> str:
    for character in "()|<>":
        url = url.replace(character, f"%{ord(character):02X}")
    return f"[{_cell(label)}]({url})"

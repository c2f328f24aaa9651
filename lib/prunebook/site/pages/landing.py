"""The explorer on the landing page: all papers in one table, with facets, search, shared views.

The table and the filters are HTML, written here; `scripts/explorer.js` shows the filters and makes
them work.
"""

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence

from ...catalog import CONCEPT_PAGES, VOCABULARY, Record, concept_anchor
from ...errors import UserError
from ...notebook.tables import VERDICTS
from ..published import Published
from ..verdicts import counts_of, is_own

PAPERS_MARKER = "<!-- papers -->"
_RUNS = {True: "runs", False: "not run yet"}
# Facets beside the tag families: name -> heading.
_MORE = {
    "year": "Year",
    "venue": "Venue",
    "kind": "Published as",
    "runs": "Runs here",
    "verdict": "Verdict",
}
_HEADINGS = {**{facet: facet.title() for facet in VOCABULARY}, **_MORE}
# Columns: name -> heading.
_COLUMNS = {
    "paper": "Paper",
    "year": "Year",
    **{facet: facet.title() for facet in VOCABULARY},
    "runs": "Runs here",
}
_SORTS = {
    "": "As listed",
    "paper:asc": "Name",
    "year:desc": "Newest first",
    "year:asc": "Oldest first",
}


def landing_page(text: str, papers: Sequence[Published]) -> str:
    """The landing page with the explorer at its marker.

    Args:
        text: the page as written.
        papers: all papers, in the tables' order.

    Raises:
        UserError: the page has not exactly one marker.
    """
    count = text.count(PAPERS_MARKER)
    if count != 1:
        raise UserError(f"index.md: needs the marker {PAPERS_MARKER} once, has it {count} times")
    return text.replace(PAPERS_MARKER, explorer(papers))


def explorer(papers: Sequence[Published]) -> str:
    """The filters and the table of papers: HTML without an empty line, as MyST takes it."""
    facets = [facets_of(published) for published in papers]
    head = "".join(
        f'<th scope="col" role="columnheader" data-name="{name}">{text}</th>'
        for name, text in _COLUMNS.items()
    )
    rows = "\n".join(
        _row(published, values) for published, values in zip(papers, facets, strict=True)
    )
    return (
        f'<div class="pb-explorer" id="explorer">\n{_tools(facets)}\n'
        '<table class="pb-papers" role="table" aria-label="Papers">\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody>\n</table>\n</div>'
    )


def facets_of(published: Published) -> dict[str, list[str]]:
    """Facet -> the paper's values, as the filters name them."""
    record = published.paper.record
    return {
        **{name: list(facet.values) for name, facet in record.facets().items()},
        "year": [str(record.year)],
        "venue": [_line(record.venue.name)],
        "kind": [record.venue.kind],
        "runs": [_RUNS[record.is_implemented]],
        "verdict": [verdict for verdict in VERDICTS if verdict in counts_of(published.claims)],
    }


def _tools(facets: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """The form of search, sorting and filters; hidden until the script runs."""
    sorts = "".join(f'<option value="{value}">{text}</option>' for value, text in _SORTS.items())
    groups = []
    for name in _HEADINGS:
        counts = Counter()
        for values in facets:
            counts.update(values[name])
        groups.append(_group(name, counts))
    boxes = "\n".join(groups)
    return f"""\
<form class="pb-tools" role="search" aria-label="Papers" hidden>
<div class="pb-bar">
<label class="pb-search"><span class="visually-hidden">Search the papers</span>\
<input type="search" name="q" placeholder="Search title, author, method…" autocomplete="off" \
spellcheck="false"></label>
<label class="pb-sort">Sort <select name="sort">{sorts}</select></label>
<button type="button" class="pb-toggle" aria-expanded="false" aria-controls="pb-facets">\
Filters</button>
<button type="reset" class="pb-clear">Clear all</button>
</div>
<div class="pb-facets" id="pb-facets">
{boxes}
</div>
<p class="pb-shown" role="status"></p>
</form>"""


def _group(facet: str, counts: Counter) -> str:
    """The check boxes of a facet, which only a value that some paper has gets."""
    heading = _HEADINGS[facet]
    boxes = "".join(
        f'<label><input type="checkbox" name="{facet}" value="{html.escape(value)}">'
        f" {html.escape(_label(facet, value))} <span "
        f'class="pb-count">{counts[value]}</span></label>'
        for value in _ordered(facet, counts)
    )
    return (
        f'<details class="pb-facet" name="pb-facet"><summary>{heading}<span '
        'class="pb-chosen"></span></summary><div class="pb-boxes" role="group" '
        f'aria-label="{heading}">{boxes}</div></details>'
    )


def _ordered(facet: str, counts: Counter) -> list[str]:
    """The values in the vocabulary's order; years latest first; others by name."""
    known = {**VOCABULARY, "verdict": tuple(VERDICTS), "runs": tuple(_RUNS.values())}.get(facet)
    if known:
        return [value for value in known if value in counts]
    return sorted(counts, key=str.casefold, reverse=facet == "year")


def _label(facet: str, value: str) -> str:
    """A value as the filters show it."""
    if facet == "verdict":
        return " ".join(VERDICTS[value])
    return value


def _row(published: Published, facets: Mapping[str, Sequence[str]]) -> str:
    """The paper's row, which carries its facets for the script."""
    record = published.paper.record
    cells = {
        "paper": _paper(record),
        "year": str(record.year),
        **{name: _tags(record, name) for name in VOCABULARY},
        "runs": " ".join(
            filter(None, [facets["runs"][0], _claims(published), _split(published.claims)])
        ),
    }
    body = "".join(
        f'<td role="cell" data-label="{_COLUMNS[name]}" class="pb-{name}"><div>{cell}</div></td>'
        for name, cell in cells.items()
    )
    data = html.escape(json.dumps(facets, ensure_ascii=False))
    return f'<tr role="row" data-facets="{data}">{body}</tr>'


def _paper(record: Record) -> str:
    """The cell of the paper itself: name, venue, title, take-away; authors only to be searched."""
    venue = f"{record.venue.name} {record.venue.year}"
    if record.venue.kind not in ("conference", "journal"):
        venue += f" ({record.venue.kind})"
    title = ""
    if record.title != record.short:
        title = f'<span class="pb-title">{_text(record.title)}</span> '
    return (
        f'<div><a class="pb-name" href="papers/{record.slug}.html">{_text(record.short)}</a> '
        f'<span class="pb-venue">{_text(venue)}</span></div> '
        f'<div class="pb-about">{title}{_text(record.takeaway)} '
        f"<span hidden>{_text(', '.join(record.authors))}</span></div>"
    )


def _tags(record: Record, facet: str) -> str:
    """The values of a facet, linked to their concepts."""
    page = CONCEPT_PAGES[facet].removesuffix(".md")
    return ", ".join(
        f'<a href="{page}.html#{concept_anchor(facet, value)}">{html.escape(value)}</a>'
        for value in record.facets()[facet].values
    )


def _claims(published: Published) -> str:
    """How many of the paper's own claims have each verdict."""
    counts = counts_of(published.claims)
    marks = [
        f'<span class="pb-mark pb-{verdict.replace("_", "-")}" title="{words}">'
        f'<span aria-hidden="true">{symbol}</span><span class="visually-hidden">{words}:</span>'
        f" {counts[verdict]}</span>"
        for verdict, (symbol, words) in VERDICTS.items()
        if counts[verdict]
    ]
    return " ".join(marks)


def _split(claims: Sequence[Mapping]) -> str:
    """How many of the paper's own claims have verdicts that differ between runs; empty for none."""
    count = 0
    for claim in filter(is_own, claims):
        count += len({each["verdict"] for each in claim.get("verdicts", [])}) > 1
    if not count:
        return ""
    words = "claims with another verdict in another run"
    return (
        f'<span class="pb-mark" title="{words}"><span aria-hidden="true">⇄</span>'
        f'<span class="visually-hidden">{words}:</span> {count}</span>'
    )


def _line(text: str) -> str:
    """`text` on one line."""
    return " ".join(text.split())


def _text(text: str) -> str:
    """Text of a record as HTML on one line; its direction ends with it, whatever marks it holds."""
    return f"<bdi>{html.escape(_line(text))}</bdi>"

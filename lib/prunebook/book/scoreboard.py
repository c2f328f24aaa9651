"""The scoreboard page: every claim of every paper with its verdict, and all measured rows by protocol."""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from ..render import protocol_line, results_html, verdict_html
from .cards import claim_counts
from .published import Published

# the page needs the width of the column on the right
_INTRO = """\
---
html_theme.sidebar_secondary.remove: true
---
# Scoreboard

Each claim below is one that its paper makes, checked by the paper's notebook on one model and one text. A
verdict on a difference between two methods compares the same windows of text and the same calibration draws:
above two standard errors the claim holds, below minus two it does not, and in between it is a tie. A claim
that does not hold at this scale may well hold at the paper's.
"""
_COLUMNS = ("Paper", "Verdict", "Claim", "Paper's number", "Ours")


def scoreboard(papers: Sequence[Published]) -> str:
    """The page as MyST, with its tables as HTML."""
    rows = [(published, claim) for published in papers for claim in published.claims]
    not_run = [published.paper.record.short for published in papers if published.execution is None]
    parts = [_INTRO, claim_counts(claim for _, claim in rows) or "No notebook has been run yet."]
    if not_run:
        parts.append(f"Not run: {html.escape(', '.join(not_run))}.")
    if rows:
        parts += ["## Claims", _claims_table(rows)]
    tables = _by_protocol(papers)
    if tables:
        parts += [
            "## Results",
            "Every row that the notebooks measured, a table for each protocol; rows that differ only in the"
            " calibration draw are averaged, and *seeds* counts them.",
            *(results_html(_averaged(rows), protocol, "paper") for protocol, rows in tables),
        ]
    return "\n\n".join(parts) + "\n"


def _claims_table(rows: Iterable[tuple[Published, Mapping]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    body = "\n".join(_claim_row(published, claim) for published, claim in rows)
    return (
        '<div class="pb-scroll" tabindex="0" role="region" aria-label="Claims">\n'
        f'<table class="pb-scoreboard">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table>\n</div>"
    )


def _claim_row(published: Published, claim: Mapping) -> str:
    record = published.paper.record
    text = {name: html.escape(str(value)) for name, value in claim.items() if value is not None}
    line = html.escape(protocol_line(claim["protocol"]))
    protocol = f'<details class="pb-protocol"><summary>Protocol</summary>{line}</details>' if line else ""
    cells = [
        f'<a href="papers/{record.slug}.html">{html.escape(record.short)}</a>',
        verdict_html(claim["verdict"]),
        text["statement"],
        f'{text["paper"]}<br><span class="pb-source">{text["source"]}</span>',
        (text.get("ours") or text["reason"]) + protocol,
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _by_protocol(papers: Iterable[Published]) -> list[tuple[dict, list[dict]]]:
    """Protocol -> all rows measured under it, each with its paper."""
    tables = {}
    for published in papers:
        for result in published.results:
            key = json.dumps(result["protocol"], sort_keys=True)
            _, rows = tables.setdefault(key, (result["protocol"], []))
            rows += [{"paper": published.paper.record.short, **row} for row in result["rows"]]
    return list(tables.values())


def _averaged(rows: Iterable[Mapping]) -> list[dict[str, Any]]:
    """One row for all that agree in every text and in sparsity: the means of their numbers."""
    groups = {}
    for row in rows:
        texts = {name: value for name, value in row.items() if isinstance(value, str)}
        key = (*texts.items(), round(row.get("sparsity") or 0, 3))
        groups.setdefault(key, []).append(row)
    return [dict(_mean(group)) for group in groups.values()]


def _mean(group: Sequence[Mapping]) -> Iterator[tuple[str, Any]]:
    for name, first in group[0].items():
        values = [row.get(name) for row in group]
        if name == "seed":
            seeds = {value for value in values if value is not None}
            yield "seeds", len(seeds) or None
        elif all(map(_is_number, values)):
            mean = sum(values) / len(values)
            yield name, round(mean) if all(isinstance(value, int) for value in values) else mean
        else:
            yield name, first if all(value == first for value in values) else None


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)

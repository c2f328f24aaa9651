"""The scoreboard page: every claim of every paper with its verdict, counted per paper and
overall."""

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ...notebook.claims import NOT_JUDGED
from ...notebook.tables import VERDICTS, protocol_line, verdict_html
from ..published import Published
from .cards import claim_badges, escape

# the page needs the width of the column on the right
_INTRO = """\
---
html_theme.sidebar_secondary.remove: true
---
# Scoreboard

Each claim below is one that its paper makes, checked by the paper's notebook on one model and one text. A
verdict on a difference between two methods compares the same windows of text and the same calibration draws:
above two standard errors the claim holds, below minus two it does not, and in between it is a tie. A claim
that does not hold at this scale may well hold at the paper's. A verdict is that of the recorded run that its
protocol names; quick runs, which show that pages work, judge nothing.
"""
_COLUMNS = ("Paper", "Verdict", "Claim", "Paper's number", "Ours")


def scoreboard(papers: Sequence[Published]) -> str:
    """The page as MyST, with its tables as HTML."""
    rows = [(published, claim) for published in papers for claim in published.claims]
    not_run = [p.paper.record.short for p in papers if p.execution is None and not p.claims]
    parts = [_INTRO, claim_badges(claim for _, claim in rows) or "No notebook has been run yet."]
    if rows:
        parts += ["## By paper", _counts_table(papers), "## Claims", _claims_table(rows)]
    if not_run:
        parts.append(f"Not run yet: {escape(', '.join(not_run))}.")
    return "\n\n".join(parts) + "\n"


def _counts_table(papers: Iterable[Published]) -> str:
    """How many claims of each paper have each verdict."""
    counted = [
        (published, Counter(claim["verdict"] for claim in published.claims)) for published in papers
    ]
    unjudged = any(counts[NOT_JUDGED] for _, counts in counted)
    shown = [verdict for verdict in VERDICTS if verdict != NOT_JUDGED or unjudged]
    words = ['<th scope="col">{} {}</th>'.format(*VERDICTS[verdict]) for verdict in shown]
    rows = []
    for published, counts in counted:
        if counts:
            cells = "".join(f'<td class="pb-number">{counts[verdict]}</td>' for verdict in shown)
            rows.append(f'<tr><th scope="row">{paper_link(published)}</th>{cells}</tr>')
    return scrolling("Claims by paper", f'<th scope="col">Paper</th>{"".join(words)}', rows)


def scrolling(label: str, head: str, rows: Iterable[str]) -> str:
    """A table that scrolls in its own box: the cells of its head, and whole rows."""
    return (
        f'<div class="pb-scroll" tabindex="0" role="region" aria-label="{label}">\n'
        f"<table "
        f'class="pb-scoreboard">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n"
        "</table>\n</div>"
    )


def paper_link(published: Published) -> str:
    """The paper's short name, linked to its page."""
    record = published.paper.record
    return f'<a href="papers/{record.slug}.html">{html.escape(" ".join(record.short.split()))}</a>'


def _claims_table(rows: Iterable[tuple[Published, Mapping]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    return scrolling("Claims", head, (_claim_row(published, claim) for published, claim in rows))


def _claim_row(published: Published, claim: Mapping) -> str:
    text = {
        name: html.escape(" ".join(str(value).split())) for name, value in claim.items() if value
    }
    parts = [html.escape(protocol_line(claim["protocol"])), text.get("recorded")]
    line = "<br>".join(filter(None, parts))
    protocol = (
        f'<details class="pb-protocol"><summary>Protocol</summary>{line}</details>' if line else ""
    )
    cells = [
        paper_link(published),
        verdict_html(claim["verdict"]),
        text["statement"],
        f'{text["paper"]}<br><span class="pb-source">{text["source"]}</span>',
        "–" if claim["verdict"] == NOT_JUDGED else (text.get("ours") or text["reason"]) + protocol,
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"

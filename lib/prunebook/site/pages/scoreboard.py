"""The scoreboard page: every claim of every paper with its verdict, and their counts."""

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ...notebook.claims import NOT_JUDGED
from ...notebook.tables import VERDICTS, protocol_line, verdict_html
from ..published import Published
from .cards import claim_badges, escape

# The page needs the width of the column on the right.
_INTRO = """\
---
html_theme.sidebar_secondary.remove: true
---
# Scoreboard

Each claim below is one that its paper makes, checked by the paper's notebook on one model and one \
text. A
verdict on a difference between two methods compares the same windows of text and the same \
calibration draws:
above two standard errors the claim holds, below minus two it does not, and in between it is a \
tie. A claim
that does not hold at this scale may well hold at the paper's. A verdict is that of the recorded \
run that its
protocol names; quick runs, which show that pages work, judge nothing.
"""
_COLUMNS = ("Paper", "Verdict", "Claim", "Paper's number", "Ours")


def scoreboard(papers: Sequence[Published]) -> str:
    """The page as MyST, with its tables as HTML."""
    rows = []
    not_run = []
    for published in papers:
        rows += [(published, claim) for claim in published.claims]
        if published.execution is None and not published.claims:
            not_run.append(published.paper.record.short)
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
    """A table that scrolls in its own box.

    Args:
        label: the table's name for screen readers.
        head: the cells of the table's head, as HTML.
        rows: whole rows, as HTML.
    """
    body = "\n".join(rows)
    return (
        f'<div class="pb-scroll" tabindex="0" role="region" aria-label="{label}">\n'
        f'<table class="pb-scoreboard">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
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
    ours = "–"
    if claim["verdict"] != NOT_JUDGED:
        ours = (text.get("ours") or text["reason"]) + _protocol(claim, text.get("recorded"))
    cells = [
        paper_link(published),
        verdict_html(claim["verdict"]),
        text["statement"],
        f'{text["paper"]}<br><span class="pb-source">{text["source"]}</span>',
        ours,
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _protocol(claim: Mapping, recorded: str | None) -> str:
    """How the claim was measured, folded; empty where nothing is known of it.

    Args:
        claim: the claim with its protocol.
        recorded: HTML that names the recorded run that the verdict is of; None for the page's own.
    """
    parts = filter(None, [html.escape(protocol_line(claim["protocol"])), recorded])
    line = "<br>".join(parts)
    if not line:
        return ""
    return f'<details class="pb-protocol"><summary>Protocol</summary>{line}</details>'

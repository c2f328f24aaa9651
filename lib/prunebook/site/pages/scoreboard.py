"""The scoreboard page: every claim of every paper with its verdict, and their counts."""

import html
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from ...notebook.claim_boxes import model_words, run_words
from ...notebook.claims import NOT_JUDGED
from ...notebook.tables import VERDICTS, protocol_line, verdict_html
from ..published import Published
from ..verdicts import counts_of, is_own
from .cards import claim_badges, escape

Claim = Mapping
_Row = tuple[Published, Claim]

# The page needs the width of the column on the right.
_INTRO = """\
---
html_theme.sidebar_secondary.remove: true
---
# Scoreboard

Each claim is checked by its paper's notebook. Its verdict is that of the largest recorded run on \
the book's own model, and the verdicts of other runs and models stand below it; quick runs judge \
nothing. Two methods are compared \
on the same windows of text and the same calibration draws, and ± in the verdict of a claim is a \
95 % interval.{rule} A record that says *earlier rule* was made on few windows and judged by two \
standard errors; it counts until a record under the present rule, on the same model, replaces it. \
The counts are of claims from the papers or their authors' own material, with bounds of ours named \
as ours; what we or reviewers asked beyond them has a table of its own.
"""
# verdict -> what it means, in the order of the legend
_LEGEND = {
    "holds": "the whole 95 % interval lies on the claimed side, or the stated bound is met",
    "tie": "our measurement cannot tell; fewer than three draws are never more than this",
    "fails": "the opposite was measured, on this model and text",
    "undertrained": "it did not hold, and the method had a small part of the paper's training",
    "not_testable": "it needs another model, training, data or hardware, or was not measured",
    NOT_JUDGED: "no recorded run has judged this statement yet",
}
_RULE_PAGE = "concepts/other_concepts"  # it explains and simulates the test
_COLUMNS = ("Paper", "Verdict", "Claim", "Paper's number", "Ours")
_ORIGINS = {"paper": "the paper", "ours": "this book", "reviewers": "its reviewers"}
_TESTED = ("holds", "tie", "fails", "undertrained")  # verdicts that a test can give
_CHANCE = 0.025  # share of tests that find the claimed side better though nothing differs


def scoreboard(papers: Sequence[Published], page_names: Collection[str] = ()) -> str:
    """The page as MyST, with its tables as HTML.

    Args:
        papers: the papers, in the tables' order.
        page_names: the pages of the book without their ending.
    """
    rows = []
    not_run = []
    for published in papers:
        rows += [(published, claim) for claim in published.claims]
        if published.execution is None and not published.claims:
            not_run.append(published.paper.record.short)
    own = [(published, claim) for published, claim in rows if is_own(claim)]
    beyond = [(published, claim) for published, claim in rows if not is_own(claim)]
    badges = claim_badges(claim for _, claim in own)
    rule = ""
    if _RULE_PAGE in page_names:
        rule = f" [How a verdict is made]({_RULE_PAGE}.md) has the test."
    parts = [_INTRO.format(rule=rule), badges or "No notebook has been run yet."]
    if rows:
        parts += [_legend(rows), _chance(rows), "## By paper", _counts_table(papers)]
        parts += ["## Claims of the papers", _filter(rows), _claims_table("Claims", own)]
    if beyond:
        parts += ["## What we asked beyond", claim_badges(claim for _, claim in beyond)]
        parts.append(_claims_table("Claims beyond the papers", beyond))
    if not_run:
        parts.append(f"Not run yet: {escape(', '.join(not_run))}.")
    return "\n\n".join(parts) + "\n"


def _legend(rows: Iterable[_Row]) -> str:
    """What each verdict means that some claim has."""
    present = {claim["verdict"] for _, claim in rows}
    items = [
        f"<dt>{verdict_html(verdict)}</dt><dd>{text}</dd>"
        for verdict, text in _LEGEND.items()
        if verdict in present
    ]
    return f'<dl class="pb-legend">{"".join(items)}</dl>'


def _chance(rows: Iterable[_Row]) -> str:
    """How many of the tests would hold by chance."""
    tests = 0
    for _, claim in rows:
        gap = claim.get("gap")
        # A question whether two are equal is decided by another test.
        present_rule = bool(gap) and "half_width" in gap and claim["verdict"] in _TESTED
        tests += present_rule and gap.get("margin") is None
    return (
        f"{tests} verdicts rest on the present rule's test of whether one loss lies below "
        "another, at 5 %. If no "
        f"method differed from any other, about {_CHANCE * tests:.0f} of them would still hold by "
        "chance, and as many would fail."
    )


def _filter(rows: Sequence[_Row]) -> str:
    """The form that filters both tables of claims; hidden until the script runs."""
    papers = {
        published.paper.slug: " ".join(published.paper.record.short.split())
        for published, _ in rows
    }
    present = {claim["verdict"] for _, claim in rows}
    verdicts = {name: " ".join(VERDICTS[name]) for name in VERDICTS if name in present}
    asked = {_origin(claim) for _, claim in rows}
    origins = {name: text for name, text in _ORIGINS.items() if name in asked}
    selects = [
        _select("paper", "Paper", papers),
        _select("verdict", "Verdict", verdicts),
        _select("origin", "Asked by", origins),
    ]
    return (
        '<form class="pb-tools pb-filter" aria-label="Claims to show" hidden><div class="pb-bar">'
        f'{"".join(selects)}<button type="reset">Clear all</button></div>'
        '<p class="pb-shown" role="status"></p></form>'
    )


def _select(name: str, heading: str, options: Mapping[str, str]) -> str:
    """A choice of one value or all."""
    entries = "".join(
        f'<option value="{html.escape(value)}">{html.escape(text)}</option>'
        for value, text in options.items()
    )
    return (
        f'<label class="pb-sort">{heading} <select name="{name}"><option value="">all</option>'
        f"{entries}</select></label>"
    )


def _origin(claim: Claim) -> str:
    """Who asked: a claim that does not say so is the paper's."""
    return claim.get("origin") or "paper"


def _counts_table(papers: Iterable[Published]) -> str:
    """How many of each paper's own claims have each verdict, and the protocol of the paper."""
    counted = [(published, counts_of(published.claims)) for published in papers]
    total = Counter()
    for _, counts in counted:
        total += counts
    shown = [verdict for verdict in VERDICTS if verdict in total]
    head = '<th scope="col">Paper</th>'
    head += "".join('<th scope="col">{} {}</th>'.format(*VERDICTS[verdict]) for verdict in shown)
    head += '<th scope="col">Protocol</th>'
    rows = []
    for published, counts in counted:
        if counts:
            cells = "".join(f'<td class="pb-number">{counts[verdict]}</td>' for verdict in shown)
            protocol = _folded("Protocol", protocol_line(_protocol_of(published)))
            rows.append(
                f'<tr><th scope="row">{paper_link(published)}</th>{cells}<td>{protocol}</td></tr>'
            )
    return scrolling("Claims by paper", head, rows)


def scrolling(label: str, head: str, rows: Iterable[str], style: str = "") -> str:
    """A table that scrolls in its own box.

    Args:
        label: the table's name for screen readers.
        head: the cells of the table's head, as HTML.
        rows: whole rows, as HTML.
        style: a further class of the box.
    """
    body = "\n".join(rows)
    return (
        f'<div class="{f"pb-scroll {style}".strip()}" tabindex="0" role="region" '
        f'aria-label="{label}">\n'
        f'<table class="pb-scoreboard">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def paper_link(published: Published) -> str:
    """The paper's short name, linked to its page."""
    record = published.paper.record
    return f'<a href="papers/{record.slug}.html">{html.escape(" ".join(record.short.split()))}</a>'


def _claims_table(label: str, rows: Iterable[_Row]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    lines = [_claim_row(published, claim) for published, claim in rows]
    return scrolling(label, head, lines, "pb-claims")


def _claim_row(published: Published, claim: Claim) -> str:
    text = {
        name: html.escape(" ".join(str(value).split())) for name, value in claim.items() if value
    }
    ours = "–"
    if claim["verdict"] != NOT_JUDGED:
        ours = (text.get("ours") or text.get("reason", "–")) + _protocol(published, claim)
    cells = [
        paper_link(published),
        verdict_html(claim["verdict"]) + _other_runs(claim),
        text["statement"],
        f'{text["paper"]}<br><span class="pb-source">{text["source"]}</span>',
        ours,
    ]
    data = {
        "paper": published.paper.slug,
        "verdict": claim["verdict"],
        "origin": _origin(claim),
    }
    marks = " ".join(f'data-{name}="{html.escape(str(value))}"' for name, value in data.items())
    return f"<tr {marks}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _other_runs(claim: Claim) -> str:
    """The verdicts of all runs below the one that counts, folded where they agree."""
    verdicts = claim.get("verdicts", [])
    if len(verdicts) < 2:
        return ""
    models = model_words(verdicts)
    lines = run_words(verdicts)
    if len({each["verdict"] for each in verdicts}) == 1:
        return _folded(models or f"{len(lines)} runs agree", *lines)
    text = "<br>".join(html.escape(line) for line in filter(None, [models, *lines]))
    return f'<div class="pb-source">{text}</div>'


def _protocol_of(published: Published) -> Mapping:
    """The protocol of the paper: that of the first table of the run with the most power."""
    results = published.judged_results or published.results
    if not results:
        return {}
    return results[0]["protocol"]


def _protocol(published: Published, claim: Claim) -> str:
    """What differs from the paper's protocol, and the run, folded; empty where nothing is known.

    Args:
        published: the paper.
        claim: its claim, with a text `recorded` where a recorded run judged it.
    """
    usual = _protocol_of(published)
    own = claim["protocol"]
    differing = {name: value for name, value in own.items() if usual.get(name) != value}
    lines = []
    if differing:
        lines.append(protocol_line(differing))
    if claim.get("recorded"):
        lines.append(claim["recorded"])
    return _folded("Protocol of this claim", *lines)


def _folded(summary: str, *lines: str) -> str:
    """Lines of text that open on a click; empty without any."""
    text = "<br>".join(html.escape(" ".join(line.split())) for line in lines if line)
    if not text:
        return ""
    return f'<details class="pb-protocol"><summary>{summary}</summary>{text}</details>'

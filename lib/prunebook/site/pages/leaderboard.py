"""The leaderboard page: every measured row of every paper, side by side where model and evaluation
are the same."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from markupsafe import Markup, escape

from ...notebook.tables import results_html
from ...runs.records import Run
from ..published import Published
from .cards import escape as escape_markdown
from .ordering import ordering
from .scoreboard import paper_link

_INTRO = """\
---
html_theme.sidebar_secondary.remove: true
---
# Leaderboard

Every row that the notebooks measured in runs that judge; the short runs that only show that pages work are left out.
One table holds what may be compared: the same model, held-out text, window
length and precision of the evaluation. Each row names what else it depends on: calibration, device, day and commit.
Rows that differ only in the calibration draw are averaged, and *seeds* counts the draws; the same row from two
notebooks stands once. Zeros are stored dense, so *on disk* and *tokens/s* show what a mask alone saves. A
click on a heading sorts.
"""
_FIGURE = """\
```{{figure}} {name}
:alt: Perplexity against real sparsity, a marker for each method; the table has the numbers
:width: 100%

Perplexity on the held-out text against the sparsity that was really reached. Lower is better.
```"""
# What two rows must share to stand in one table; the rest of a protocol is told in the row.
_SHARED = ("model", "dtype", "evaluation", "evaluation_precision")
_TOLD = ("calibration", "device")
# Okabe and Ito's palette with a marker each: colour is never the only difference.
_STYLES = (
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#D55E00", "D"),
    ("#CC79A7", "v"),
    ("#56B4E9", "P"),
)


def leaderboard(
    papers: Sequence[Published], runs: Sequence[Run], order: Mapping | None = None
) -> tuple[str, dict[str, bytes]]:
    """The page as MyST with its tables as HTML, and its figures: file name -> SVG.

    Args:
        papers: the papers with what their notebooks measured for this build.
        runs: recorded runs, from other hardware or other days.
        order: the record of the methods' order at equal sparsity, see `read_ordering`.
    """
    parts = [_INTRO]
    figures = {}
    if order:
        text, figures = ordering(order, [published.paper.slug for published in papers])
        parts.append(text)
    # of papers that have left the book, too
    links = {run.slug: escape(" ".join(run.short.split())) for run in runs}
    links |= {published.paper.slug: Markup(paper_link(published)) for published in papers}
    for number, (protocol, rows) in enumerate(_tables(papers, runs), start=1):
        rows = sorted(_averaged(rows), key=lambda row: row.get("perplexity") or float("inf"))
        rows = [
            {**row, "paper": Markup(", ").join(links[slug] for slug in row["paper"])}
            for row in rows
        ]
        name = f"leaderboard-{number}.svg"
        title = f"{protocol.get('model', 'model not named')}, {protocol.get('evaluation', 'evaluation not named')}"
        parts.append(f"## {escape_markdown(title)}")
        if len({row.get("sparsity") for row in rows if row.get("perplexity")}) > 2:
            figures[name] = _figure(rows)
            parts.append(_FIGURE.format(name=name))
        parts.append(f'<div class="pb-sortable">{results_html(rows, protocol, "paper")}</div>')
    if len(parts) == 1:
        parts.append("No notebook has been run yet.")
    return "\n\n".join(parts) + "\n", figures


def _tables(papers: Iterable[Published], runs: Iterable[Run]) -> list[tuple[dict, list[dict]]]:
    """What is shared -> all rows measured under it, each with its paper and what else it depends
    on."""
    judging = [published for published in papers if published.judges]
    found = [
        (published.paper.slug, result) for published in judging for result in published.results
    ]
    found += [(run.slug, result) for run in runs for result in run.results]
    tables = {}
    for slug, result in found:
        protocol = result["protocol"]
        shared = {name: protocol[name] for name in _SHARED if name in protocol}
        told = {name: protocol[name] for name in _TOLD if name in protocol}
        told |= {name: result[name] for name in ("date", "commit") if result.get(name)}
        _, rows = tables.setdefault(json.dumps(shared, sort_keys=True), (shared, []))
        rows += [{"paper": slug, **row, **told} for row in result["rows"]]
    return list(tables.values())


def _averaged(rows: Iterable[Mapping]) -> Iterator[dict[str, Any]]:
    """One row for all draws of a method, and one for what several notebooks measured alike."""
    draws = {}
    for row in rows:
        texts = {name: value for name, value in row.items() if isinstance(value, str)}
        draws.setdefault((*texts.items(), round(row.get("sparsity") or 0, 3)), []).append(row)
    same = {}
    for row in (dict(_mean(group)) for group in draws.values()):
        identity = [
            row.get(name)
            for name in ("method", "pattern", "sparsity", "perplexity", "calibration", "device")
        ]
        same.setdefault(json.dumps(identity), []).append(row)
    for group in same.values():
        yield {**group[0], "paper": list(dict.fromkeys(row["paper"] for row in group))}


def _mean(group: Sequence[Mapping]) -> Iterator[tuple[str, Any]]:
    for name, first in group[0].items():
        values = [row[name] for row in group if row.get(name) is not None]
        if name == "seed":
            yield "seeds", len(set(values)) or None
        elif values and all(map(_is_number, values)):
            mean = sum(values) / len(values)
            yield name, round(mean) if all(isinstance(value, int) for value in values) else mean
        else:
            yield name, first if all(value == first for value in values) else None


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _figure(rows: Sequence[Mapping]) -> bytes:
    """Perplexity against sparsity as SVG, the same bytes for the same rows."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.add_subplot()
    plotted = [row for row in rows if row.get("perplexity") and row.get("sparsity") is not None]
    methods = dict.fromkeys(row.get("method") or row["label"] for row in plotted)
    for number, method in enumerate(name for name in methods if name != "dense"):
        colour, marker = _STYLES[number % len(_STYLES)]
        points = [row for row in plotted if (row.get("method") or row["label"]) == method]
        x = [100 * row["sparsity"] for row in points]
        y = [row["perplexity"] for row in points]
        axis.scatter(x, y, s=40, color=colour, marker=marker, label=method, alpha=0.85)
    dense = next((row for row in plotted if row.get("method") == "dense"), None)
    if dense:
        axis.axhline(
            dense["perplexity"], color="black", linewidth=0.9, linestyle="--", label="dense"
        )
    axis.set(
        yscale="log",
        xlabel="sparsity of the linears inside the blocks [%]",
        ylabel="perplexity (log scale)",
    )
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(title="method")
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "prunebook", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()

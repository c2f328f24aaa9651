"""The leaderboard page: every measured row of every paper, beside those it may be compared with."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from markupsafe import Markup, escape

from ...notebook.tables import results_html
from ...runs.records import Run
from ..published import Published
from .cards import escape as escape_markdown
from .figures import STYLES, draw_dense, new_figure, to_svg
from .ordering import ordering
from .scoreboard import paper_link

_INTRO = """\
---
html_theme.sidebar_secondary.remove: true
---
# Leaderboard

Every row that the notebooks measured in runs that judge; the short runs that only show that pages \
work are left out.
One table holds what may be compared: the same model, held-out text, window
length and precision of the evaluation. Each row names what else it depends on: calibration, \
device, day and commit.
Rows that differ only in the calibration draw are averaged, and *seeds* counts the draws; the same \
row from two
notebooks stands once. Zeros are stored dense, so *on disk* and *tokens/s* show what a mask alone \
saves. A
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
_IN_ROW = ("calibration", "device")
# What makes two averaged rows the same measurement, whichever notebook made it.
_IDENTITY = ("method", "pattern", "sparsity", "perplexity", "calibration", "device")


def leaderboard(
    papers: Sequence[Published],
    recorded_runs: Sequence[Run],
    ordering_record: Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, bytes]]:
    """The page as MyST with its tables as HTML, and its figures: file name -> SVG.

    Args:
        papers: the papers with what their notebooks measured for this build.
        recorded_runs: runs from other hardware or other days, those of papers that have left the
            book included.
        ordering_record: the record of the methods' order at equal sparsity; None for none.
    """
    parts = [_INTRO]
    figures = {}
    if ordering_record:
        text, figures = ordering(ordering_record, [published.paper.slug for published in papers])
        parts.append(text)
    links = {run.slug: escape(" ".join(run.short.split())) for run in recorded_runs}
    links |= {published.paper.slug: Markup(paper_link(published)) for published in papers}
    tables = _tables(papers, recorded_runs)
    for number, (protocol, measured_rows) in enumerate(tables, start=1):
        rows = []
        for row in sorted(_averaged(measured_rows), key=_perplexity):
            linked = Markup(", ").join(links[slug] for slug in row["paper"])
            rows.append({**row, "paper": linked})
        model = protocol.get("model", "model not named")
        evaluation = protocol.get("evaluation", "evaluation not named")
        parts.append(f"## {escape_markdown(f'{model}, {evaluation}')}")
        if len({row.get("sparsity") for row in rows if row.get("perplexity")}) > 2:
            name = f"leaderboard-{number}.svg"
            figures[name] = _figure(rows)
            parts.append(_FIGURE.format(name=name))
        parts.append(f'<div class="pb-sortable">{results_html(rows, protocol, "paper")}</div>')
    if len(parts) == 1:
        parts.append("No notebook has been run yet.")
    return "\n\n".join(parts) + "\n", figures


def _perplexity(row: Mapping) -> float:
    """What rows are sorted by; those without a perplexity come last."""
    return row.get("perplexity") or float("inf")


def _tables(
    papers: Iterable[Published], recorded_runs: Iterable[Run]
) -> list[tuple[dict, list[dict]]]:
    """The shared part of a protocol, and all rows measured under it.

    Each row has its paper and what else it depends on.
    """
    measured = []
    for published in papers:
        if published.judges:
            measured += [(published.paper.slug, result) for result in published.results]
    for run in recorded_runs:
        measured += [(run.slug, result) for result in run.results]
    tables = {}
    for slug, result in measured:
        protocol = result["protocol"]
        shared = {name: protocol[name] for name in _SHARED if name in protocol}
        in_row = {name: protocol[name] for name in _IN_ROW if name in protocol}
        in_row |= {name: result[name] for name in ("date", "commit") if result.get(name)}
        _, rows = tables.setdefault(json.dumps(shared, sort_keys=True), (shared, []))
        rows += [{"paper": slug, **row, **in_row} for row in result["rows"]]
    return list(tables.values())


def _averaged(rows: Iterable[Mapping]) -> Iterator[dict[str, Any]]:
    """One row for all draws of a method, and one for what several notebooks measured alike."""
    # Draws of one method agree in all texts and in the sparsity, but for its last digits.
    draws = {}
    for row in rows:
        texts = {name: value for name, value in row.items() if isinstance(value, str)}
        draws.setdefault((*texts.items(), round(row.get("sparsity") or 0, 3)), []).append(row)
    same = {}
    for group in draws.values():
        row = dict(_mean(group))
        identity = json.dumps([row.get(name) for name in _IDENTITY])
        same.setdefault(identity, []).append(row)
    for group in same.values():
        yield {**group[0], "paper": list(dict.fromkeys(row["paper"] for row in group))}


def _mean(group: Sequence[Mapping]) -> Iterator[tuple[str, Any]]:
    """Name and value of each column of the row that stands for a group of draws."""
    for name, first in group[0].items():
        values = [row[name] for row in group if row.get(name) is not None]
        if name == "seed":
            yield "seeds", len(set(values)) or None
        elif values and all(map(_is_number, values)):
            mean = sum(values) / len(values)
            if all(isinstance(value, int) for value in values):
                mean = round(mean)
            yield name, mean
        elif all(value == first for value in values):
            yield name, first
        else:
            yield name, None


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _figure(rows: Sequence[Mapping]) -> bytes:
    """Perplexity against sparsity as SVG."""
    figure, axis = new_figure()
    plotted = [row for row in rows if row.get("perplexity") and row.get("sparsity") is not None]
    methods = dict.fromkeys(row.get("method") or row["label"] for row in plotted)
    for number, method in enumerate(name for name in methods if name != "dense"):
        colour, marker = STYLES[number % len(STYLES)]
        points = [row for row in plotted if (row.get("method") or row["label"]) == method]
        x = [100 * row["sparsity"] for row in points]
        y = [row["perplexity"] for row in points]
        axis.scatter(x, y, s=40, color=colour, marker=marker, label=method, alpha=0.85)
    dense = next((row for row in plotted if row.get("method") == "dense"), None)
    if dense:
        draw_dense(axis, dense["perplexity"])
    axis.set(
        yscale="log",
        xlabel="sparsity of the linears inside the blocks [%]",
        ylabel="perplexity (log scale)",
    )
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(title="method")
    return to_svg(figure)

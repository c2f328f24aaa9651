"""The leaderboard: the order at equal sparsity, and what the recorded runs of papers measured."""

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ...notebook.tables import results_html, value_text
from ...runs.records import Run
from ..published import Published
from .board_cells import marks, shown_cells
from .board_rows import KINDS, Board, BoardRow, boards
from .cards import escape as escape_markdown
from .figures import draw_dense, half_width, new_figure, styles_of, to_svg
from .ordering import is_tested, ordering
from .scoreboard import paper_link

_INTRO = """\
---
html_theme.sidebar_secondary.remove: true
---
# Leaderboard

Every row of the tables of results in the papers' recorded runs. One section holds what may be \
compared: the same model, held-out text, window length and precision, so one dense value; weights, \
structures and caches have tables of their own. Each row names what else it depends on: \
calibration, device, day and commit. `smollm2-135m` is SmolLM2-135M-Instruct, dequantised from a \
4-bit file.

Rows that differ only in the calibration draw are averaged: *seeds* counts the draws, and ± is the \
95 % interval of the mean over them. *Beside the best* compares a row with the best of its level \
and calibration by the paired test over windows and draws: *tie* means that the test cannot tell \
the two apart, and *few draws* that other draws might decide. What reads no text is compared with \
the calibration that most rows have. A perplexity above the size of the vocabulary is \
worse than guessing and shown as *broken*. Times and memory are shown only where the machine was \
idle. Zeros are stored dense, so *on disk* and *tokens/s* show what a mask alone saves. A click on \
a heading sorts.
"""
_FIGURE = """\
```{{figure}} {name}
:alt: Perplexity against real sparsity, a marker for each method; the table has the numbers
:width: 100%

Perplexity on the held-out text against the sparsity that was really reached, with the 95 % \
interval over the draws where there are several. Hollow markers are n:m patterns. Lower is better; \
broken models are left out.
```"""
_EARLIER = (
    "Earlier runs: version 1 of the records, on fewer windows, each section a protocol of its own"
)


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
    names = {run.slug: " ".join(run.short.split()) for run in recorded_runs}
    names |= {paper.paper.slug: " ".join(paper.paper.record.short.split()) for paper in papers}
    links = {slug: escape(name) for slug, name in names.items()}
    links |= {published.paper.slug: Markup(paper_link(published)) for published in papers}
    measured = []
    for published in papers:
        if published.judges:
            measured += [(published.paper.slug, result) for result in published.results]
    measured += _tables(run for run in recorded_runs if not run.is_earlier)
    present = _in_order(boards(measured), ordering_record)
    for number, (board, title) in enumerate(zip(present, _titles(present), strict=True), start=1):
        text, drawn = _section(board, title, links, names, number)
        parts.append(text)
        figures |= drawn
    if ordering_record:
        text, drawn = ordering(ordering_record, [published.paper.slug for published in papers])
        figures |= drawn
        place = len(parts)
        if is_tested(ordering_record):
            place = 1  # right after the introduction
        parts.insert(place, text)
    earlier = boards(_tables(run for run in recorded_runs if run.is_earlier))
    if earlier:
        parts.append(_folded(earlier, links))
    if len(parts) == 1:
        parts.append("No notebook has been run yet.")
    return "\n\n".join(parts) + "\n", figures


def _tables(runs: Iterable[Run]) -> list[tuple[str, dict[str, Any]]]:
    """Slug and table of each table of runs."""
    tables = []
    for run in runs:
        tables += [(run.slug, result) for result in run.results]
    return tables


def _in_order(made: Sequence[Board], ordering_record: Mapping[str, Any] | None) -> list[Board]:
    """The boards, those under the protocol of the order at equal sparsity first."""
    if not ordering_record:
        return list(made)
    present = ordering_record["protocol"]

    def is_other(board: Board) -> bool:
        shared = ("model", "evaluation")
        return any(board.protocol.get(name) != present.get(name) for name in shared)

    return sorted(made, key=is_other)


def _named(board: Board, name: str) -> str:
    """A value of a board's protocol as text, or that it is not named."""
    value = board.protocol.get(name)
    if value is None:
        return f"{name.replace('_', ' ')} not named"
    return value_text(value)


def _titles(made: Sequence[Board]) -> list[str]:
    """Model and text of each board, as its heading; with dtype and precision where others share it.

    Where boards agree in these, too, the perplexity of their dense models is added.
    """
    titles = [f"{_named(board, 'model')}, {_named(board, 'evaluation')}" for board in made]
    for name in ("dtype", "evaluation_precision"):
        shared = Counter(titles)
        for index, board in enumerate(made):
            if shared[titles[index]] > 1:
                titles[index] += f", {_named(board, name)}"
    shared = Counter(titles)
    for index, board in enumerate(made):
        if shared[titles[index]] > 1 and board.dense:
            titles[index] += f", dense {board.dense:.2f}"
    return titles


def _section(
    board: Board, title: str, links: Mapping[str, str], names: Mapping[str, str], number: int
) -> tuple[str, dict[str, bytes]]:
    """The section of a board as MyST, and its figures.

    Args:
        board: the board.
        title: its heading.
        links: slug -> the paper's name as HTML.
        names: slug -> the paper's name, which figures call a method of this name by.
        number: number of the section on the page, for the names of figures.
    """
    parts = [f"## {escape_markdown(title)}"]
    figures = {}
    dense = [row for row in board.rows if row.is_dense]
    kinds = {row.kind for row in board.rows if not row.is_dense}
    for kind, heading in KINDS.items():
        rows = [row for row in board.rows if row.kind == kind and not row.is_dense]
        if not rows and (kinds or kind != "weights"):
            continue
        parts.append(f"### {heading}")
        plotted = [row for row in rows if _can_be_drawn(row, board)]
        if len({row.level for row in plotted}) > 1:
            name = f"leaderboard-{number}-{kind}.svg"
            figures[name] = _figure(plotted, board, names)
            parts.append(_FIGURE.format(name=name))
        parts.append(_table([*dense, *rows], board, links))
    return "\n\n".join(parts), figures


def _table(rows: Sequence[BoardRow], board: Board, links: Mapping[str, str]) -> str:
    """Rows as a table that sorts: the dense model, then level by level, the best first."""
    rows = sorted(rows, key=_place)
    words = marks(rows)
    shown = []
    for index, row in enumerate(rows):
        cells = shown_cells(row, board)
        paper = Markup(", ").join(links[slug] for slug in row.papers)
        if row.is_dense and len(row.papers) > 1:
            paper = "all"
        shown.append({"paper": paper, **cells, "beside_best": words.get(index)})
    return f'<div class="pb-sortable">{results_html(shown, board.protocol, "paper")}</div>'


def _place(row: BoardRow) -> tuple[bool, float, str, float]:
    """What rows are sorted by; those without a perplexity come last in their level."""
    perplexity = row.cells.get("perplexity") or float("inf")
    return not row.is_dense, round(row.cells.get("sparsity") or 0, 2), row.level, perplexity


def _folded(earlier: Sequence[Board], links: Mapping[str, str]) -> str:
    """The tables of earlier runs as one folded block of HTML, without an empty line."""
    parts = []
    for board, title in zip(earlier, _titles(earlier), strict=True):
        parts.append(f"<h3>{html.escape(title)}</h3>")
        parts.append(_table(board.rows, board, links))
    body = "\n".join(parts)
    return f'<details class="pb-earlier">\n<summary>{_EARLIER}</summary>\n{body}\n</details>'


def _can_be_drawn(row: BoardRow, board: Board) -> bool:
    """Whether a row has a place in the figure: a sparsity, and a perplexity that is not broken."""
    has_place = row.perplexities and row.cells.get("sparsity") is not None
    return bool(has_place) and row.cells["perplexity"] <= board.vocabulary


def _figure(plotted: Sequence[BoardRow], board: Board, names: Mapping[str, str]) -> bytes:
    """Perplexity against sparsity as SVG, with intervals where there are draws."""
    figure, axis = new_figure()
    for method, style in styles_of(dict.fromkeys(row.name for row in plotted)).items():
        points = [row for row in plotted if row.name == method]
        label = names.get(method, method[:1].upper() + method[1:])
        for hollow in (False, True):
            chosen = [row for row in points if (":" in row.level) == hollow]
            if chosen:
                _draw_points(axis, chosen, style, label, hollow)
                # The legend names a method once.
                label = None
    if board.dense:
        draw_dense(axis, board.dense)
    axis.set(yscale="log", xlabel="sparsity that was reached [%]", ylabel="perplexity (log scale)")
    axis.grid(visible=True, which="both", alpha=0.25)
    # Above the axis, where no point can lie.
    axis.legend(ncols=5, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return to_svg(figure)


def _draw_points(
    axis: Any, rows: Sequence[BoardRow], style: tuple[str, str], label: str | None, hollow: bool
) -> None:
    """Draw the rows of one method with their intervals.

    Args:
        axis: where to draw.
        rows: the rows.
        style: colour and marker of the method.
        label: its name in the legend; None where it is there already.
        hollow: whether the markers are empty.
    """
    colour, marker = style
    face = colour
    if hollow:
        face = "white"
    axis.errorbar(
        [100 * row.cells["sparsity"] for row in rows],
        [row.cells["perplexity"] for row in rows],
        [half_width(row.perplexities) or math.nan for row in rows],
        color=colour,
        marker=marker,
        markerfacecolor=face,
        markersize=7,
        linestyle="none",
        capsize=4,
        alpha=0.85,
        label=label,
    )

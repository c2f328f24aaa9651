"""The order of the methods at equal sparsity: a section of the leaderboard, with a figure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .board_cells import marks
from .board_rows import Board, BoardRow
from .figures import draw_dense, half_width, new_figure, styles_of, to_svg

# label of a method -> level of sparsity -> rows of its calibration draws
Measured = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]

_NAME = "ordering.svg"
_SECTION = """\
## {heading}

```{{figure}} {name}
:alt: Perplexity of each method at each sparsity with error bars; the table below has the numbers
:width: 100%

Perplexity on held-out text, mean over {seeds} calibration draws with its 95 % interval as bar; \
magnitude pruning reads no text and has one value. Lower is better.
```

{table}

Mean ± 95 % interval of the mean over the draws, and below it × the ratio to dense. {tested} \
– stands where a method is not defined, and a perplexity above the \
{vocabulary:,} words of the vocabulary is broken.{options} {protocol} Dense: {dense:.2f}. \
Recorded on {days}."""
_TESTED = (
    "*(best)* is the lowest mean of a column; *(tie)* means that the paired test over windows and "
    "draws cannot tell the two apart."
)
_UNTESTED = (
    "This is a record of earlier code: no losses by window are on it, so no method is tested "
    "against the best, and where a section above has another number, that one counts."
)


def is_tested(record: Mapping[str, Any]) -> bool:
    """Whether a record has the losses by window that the test needs.

    One without them is from before the present rule: the papers' recorded runs go before it.
    """
    return all("losses" in row for row in record["rows"])


def ordering(record: Mapping[str, Any], slugs: Sequence[str] = ()) -> tuple[str, dict[str, bytes]]:
    """The section as MyST, and its figure: file name -> SVG.

    Args:
        record: the record of `benchmarks/ordering.py`.
        slugs: the papers of the book; a method with the name of one links to it.
    """
    rows = record["rows"]
    levels = list(dict.fromkeys(row["level"] for row in rows))
    measured: dict[str, dict[str, list[Mapping]]] = {}
    links = {}
    for row in rows:
        measured.setdefault(row["label"], {}).setdefault(row["level"], []).append(row)
        links[row["label"]] = row["label"]
        if row["method"] in slugs:
            links[row["label"]] = f"[{row['label']}](papers/{row['method']}.ipynb)"
    protocol = "; ".join(
        f"{name.replace('_', ' ')}: {value}" for name, value in record["protocol"].items()
    )
    board = Board(dict(record["protocol"]), record["dense"])
    heading = "The order at equal sparsity, by an earlier record"
    words = {}
    tested = _UNTESTED
    if is_tested(record):
        heading = "The order at equal sparsity"
        words = _words(measured, levels)
        tested = _TESTED
    text = _SECTION.format(
        heading=heading,
        name=_NAME,
        table=_table(measured, levels, links, board, words),
        seeds=record["protocol"]["seeds"],
        protocol=f"{protocol}.",
        options=_options(rows),
        tested=tested,
        vocabulary=board.vocabulary,
        dense=record["dense"],
        days=" to ".join(_first_and_last(row["date"][:10] for row in rows)),
    )
    return text, {_NAME: _figure(measured, levels, board)}


def _words(measured: Measured, levels: Sequence[str]) -> dict[tuple[str, str], str]:
    """Label and level -> how the method compares with the best of the level, see `marks`."""
    places = []
    rows = []
    for label, by_level in measured.items():
        for level in levels:
            draws = by_level.get(level, [])
            if draws:
                places.append((label, level))
                losses = tuple(tuple(row["losses"]) for row in draws)
                rows.append(BoardRow({}, (), "weights", level, _perplexities(draws), losses))
    return {places[index]: word for index, word in marks(rows).items()}


def _table(
    measured: Measured,
    levels: Sequence[str],
    links: Mapping[str, str],
    board: Board,
    words: Mapping[tuple[str, str], str],
) -> str:
    """A row a method, a column a level."""
    lines = ["| method | " + " | ".join(levels) + " |", "|---" + "|--:" * len(levels) + "|"]
    for label, by_level in measured.items():
        cells = []
        for level in levels:
            cells.append(_cell(by_level.get(level), board, words.get((label, level))))
        lines.append(f"| {links[label]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _options(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sentence that tells the options beside the sparsity, and who has them; may be empty."""
    labels_of: dict[str, dict[str, None]] = {}
    for row in rows:
        options = ", ".join(f"{name} {value}" for name, value in row["options"].items())
        labels_of.setdefault(options, {})[row["label"]] = None
    parts = [f"{', '.join(labels)}: {options}" for options, labels in labels_of.items() if options]
    if not parts:
        return ""
    return f" Options beside the sparsity: {'; '.join(parts)}."


def _first_and_last(days: Iterable[str]) -> list[str]:
    """The first and the last of the days; one where they are the same."""
    days = sorted(set(days))
    return list(dict.fromkeys([days[0], days[-1]]))


def _perplexities(draws: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    return tuple(row["perplexity"] for row in draws)


def _cell(draws: Sequence[Mapping[str, Any]] | None, board: Board, word: str | None) -> str:
    """Mean of the draws, its interval and ratio to dense, and how it compares with the best."""
    if not draws:
        return "–"
    perplexities = _perplexities(draws)
    mean = float(np.mean(perplexities))
    if mean > board.vocabulary:
        return "broken"
    width = half_width(perplexities)
    decimals = _decimals(mean, width)
    text = f"{mean:.{decimals}f}"
    if len(draws) > 1:
        text += f"\u00a0± {width:.{decimals}f}"
    if word in ("best", "tie"):
        text += f" *({word})*"
    return f"{text}<br>×{mean / board.dense:.2f}"


def _decimals(mean: float, width: float) -> int:
    """Decimals of a perplexity and of half its interval: no more than the interval tells."""
    if width >= 10 or mean >= 1000:
        return 0
    if width >= 1:
        return 1
    return 2


def _figure(measured: Measured, levels: Sequence[str], board: Board) -> bytes:
    """Levels side by side, methods in the order of the record within each, as SVG."""
    figure, axis = new_figure()
    # Methods stand beside each other within a level; a single one stands in the middle.
    offsets = [0.0]
    if len(measured) > 1:
        offsets = np.linspace(-0.3, 0.3, len(measured))
    styles = styles_of(measured)
    for number, (label, by_level) in enumerate(measured.items()):
        colour, marker = styles[label]
        means = {level: np.mean(_perplexities(draws)) for level, draws in by_level.items()}
        drawn = [level for level, mean in means.items() if mean <= board.vocabulary]
        axis.errorbar(
            [levels.index(level) + offsets[number] for level in drawn],
            [means[level] for level in drawn],
            [half_width(_perplexities(by_level[level])) or math.nan for level in drawn],
            color=colour,
            marker=marker,
            markersize=7,
            linestyle="none",
            capsize=4,
            label=label,
        )
    draw_dense(axis, board.dense)
    axis.set_xticks(range(len(levels)), levels)
    axis.set(
        yscale="log",
        xlabel="removed from the linears inside the blocks",
        ylabel="perplexity (log scale)",
    )
    axis.grid(visible=True, axis="y", which="both", alpha=0.25)
    # Above the axis, where no point can lie.
    axis.legend(ncols=5, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return to_svg(figure)

"""The order of the methods at equal sparsity: a section of the leaderboard, with a figure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...notebook.palette import BLACK
from .figures import STYLES, draw_dense, new_figure, to_svg

# label of a method -> level of sparsity -> perplexity of each calibration draw
Measured = Mapping[str, Mapping[str, Sequence[float]]]

_NAME = "ordering.svg"
_GREY = "#999999"
_STYLES = ((_GREY, "x"), *STYLES, (BLACK, "*"))
_SECTION = """\
## The order at equal sparsity

```{{figure}} {name}
:alt: Perplexity of each method at each sparsity with error bars; the table below has the numbers
:width: 100%

Perplexity on held-out text, mean over {seeds} calibration draws with one standard deviation as \
bar. Lower is better.
```

{table}

Mean ± standard deviation over the draws, the lowest of a column in bold; magnitude needs no data, \
and – stands where a
method is not defined.{options} {protocol} Dense: {dense:.2f}. Recorded on {days}."""


def ordering(record: Mapping[str, Any], slugs: Sequence[str] = ()) -> tuple[str, dict[str, bytes]]:
    """The section as MyST, and its figure: file name -> SVG.

    Args:
        record: the record of `benchmarks/ordering.py`.
        slugs: the papers of the book; a method with the name of one links to it.
    """
    rows = record["rows"]
    levels = list(dict.fromkeys(row["level"] for row in rows))
    measured: dict[str, dict[str, list[float]]] = {}
    links = {}
    for row in rows:
        draws = measured.setdefault(row["label"], {}).setdefault(row["level"], [])
        draws.append(row["perplexity"])
        links[row["label"]] = row["label"]
        if row["method"] in slugs:
            links[row["label"]] = f"[{row['label']}](papers/{row['method']}.ipynb)"
    protocol = "; ".join(
        f"{name.replace('_', ' ')}: {value}" for name, value in record["protocol"].items()
    )
    text = _SECTION.format(
        name=_NAME,
        table=_table(measured, levels, links),
        seeds=record["protocol"]["seeds"],
        protocol=f"{protocol}.",
        options=_options(rows),
        dense=record["dense"],
        days=" to ".join(_first_and_last(row["date"][:10] for row in rows)),
    )
    return text, {_NAME: _figure(measured, levels, record["dense"])}


def _table(measured: Measured, levels: Sequence[str], links: Mapping[str, str]) -> str:
    """A row a method, a column a level; the lowest mean of a column is bold."""
    best = {}
    for level in levels:
        means = [
            (np.mean(draws[level]), label) for label, draws in measured.items() if level in draws
        ]
        best[level] = min(means)[1]
    lines = ["| method | " + " | ".join(levels) + " |", "|---" + "|--:" * len(levels) + "|"]
    for label, draws in measured.items():
        cells = [_cell(draws.get(level), best[level] == label) for level in levels]
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


def _cell(draws: Sequence[float] | None, best: bool) -> str:
    """Mean and standard deviation of the draws."""
    if not draws:
        return "–"
    mean = np.mean(draws)
    text = f"{mean:.0f}"
    if mean < 1000:
        text = f"{mean:.2f}"
    if len(draws) > 1:
        deviation = _deviation(draws)
        digits = ".2g" if deviation < 99 else ".0f"
        text += f" ± {deviation:{digits}}"
    if best:
        return f"**{text}**"
    return text


def _deviation(draws: Sequence[float]) -> float:
    """The standard deviation of the draws; 0 for a single one."""
    if len(draws) < 2:
        return 0.0
    return np.std(draws, ddof=1)


def _figure(measured: Measured, levels: Sequence[str], dense: float) -> bytes:
    """Levels side by side, methods in the order of the record within each, as SVG."""
    figure, axis = new_figure()
    # Methods stand beside each other within a level; a single one stands in the middle.
    offsets = [0.0]
    if len(measured) > 1:
        offsets = np.linspace(-0.3, 0.3, len(measured))
    for number, (label, draws_of) in enumerate(measured.items()):
        colour, marker = _STYLES[number % len(_STYLES)]
        axis.errorbar(
            [levels.index(level) + offsets[number] for level in draws_of],
            [np.mean(draws) for draws in draws_of.values()],
            [_deviation(draws) for draws in draws_of.values()],
            color=colour,
            marker=marker,
            markersize=7,
            linestyle="none",
            capsize=4,
            label=label,
        )
    draw_dense(axis, dense)
    axis.set_xticks(range(len(levels)), levels)
    axis.set(
        yscale="log",
        xlabel="removed from the linears inside the blocks",
        ylabel="perplexity (log scale)",
    )
    axis.grid(visible=True, axis="y", which="both", alpha=0.25)
    axis.legend(ncols=2, fontsize="small")
    return to_svg(figure)

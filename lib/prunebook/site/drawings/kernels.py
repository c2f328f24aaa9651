"""Timed kernels: speed-up by shape, achieved bandwidth, operations under a measured roof.

Ours and its rivals are drawn; other forms of ours and controls have a table.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import NullLocator

from ...bench.record import TIMED, Measured, Row, Run
from ...notebook.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from .canvas import INK, LINE, SMALL, Drawing

_OURS = (BLUE, "o")
_BASELINES = (
    (ORANGE, "s"),
    (GREEN, "^"),
    (VERMILION, "D"),
    (SKY, "v"),
    (PURPLE, "P"),
    (INK, "X"),
)
# Heights in inches: of the line of a case, of an entry of the legend, of the axis.
_LINE = 0.2
_ENTRY = 0.17
_FRAME = 0.9


def short_label(case: Measured) -> str:
    """The case in short, e.g. `4096 x 11008, tokens 8`.

    Rows and columns of the weight come first, then what else sets the case apart.
    """
    shape = dict(case.shape)
    settings = dict(case.settings)
    parts = []
    if {"rows", "columns"} <= set(shape):
        parts.append(f"{shape.pop('rows')} x {shape.pop('columns')}")
    parts += [f"{name} {value}" for name, value in shape.items()]
    parts += [str(value) for value in settings.values()]
    return ", ".join(parts)


def speedups(cases: Sequence[Measured]) -> Drawing:
    """How many times faster ours is than each baseline, a line a case.

    Left of 1 ours loses. A marker is hollow where wall times are compared.
    """
    drawn = [case for case in cases if case.speedups()]
    by_wall = [{row.name for row in _shown(case) if case.mixed(row)} for case in drawn]
    figure = _by_case(
        drawn, [case.speedups() for case in drawn], "speed-up over the baseline", 1, by_wall
    )
    axis = figure.axes[0]
    if any(by_wall):
        axis.scatter([], [], s=26, facecolors="none", edgecolors=INK, label="hollow: by wall time")
    axis.axvline(1, color=INK, linewidth=1)
    axis.axvspan(axis.get_xlim()[0], 1, color=LINE, alpha=0.25, linewidth=0, label="ours is slower")
    return _with_legend(figure)


def bandwidths(cases: Sequence[Measured], run: Run) -> Drawing:
    """Achieved GB/s on algorithmic bytes, a line a case, beside the measured ceiling of a copy."""
    drawn = [case for case in cases if case.ours.status == TIMED]
    rates = [{row.name: row.gb_s for row in _shown(case)} for case in drawn]
    figure = _by_case(drawn, rates, "algorithmic bytes [GB/s]", run.copy_gb_s)
    figure.axes[0].axvline(
        run.copy_gb_s, color=INK, linewidth=1.2, linestyle="--", label="a copy, measured"
    )
    return _with_legend(figure)


def roofline(cases: Sequence[Measured], run: Run) -> Drawing:
    """Achieved operations against operations a byte, under the roof of copy and product."""
    drawn = [case for case in cases if case.ours.status == TIMED]
    intensity = [case.flop / case.bytes for case in drawn]
    ridge = 1e3 * run.gemm_tflop_s / run.copy_gb_s
    look = _styles(drawn)
    figure = Drawing(3.2 + _ENTRY * len(look))
    axis = figure.subplots()
    x = np.geomspace(min(*intensity, ridge) / 2, max(*intensity, ridge) * 2, 200)
    roof = np.minimum(x * run.copy_gb_s / 1e3, run.gemm_tflop_s)
    axis.plot(x, roof, color=INK, linewidth=1.5, label="roof, measured: a copy, a bfloat16 product")
    for name, (colour, marker) in look.items():
        points = []
        for operations, case in zip(intensity, drawn, strict=True):
            rates = [row.tflop_s for row in _shown(case) if row.name == name]
            points += [(operations, rate) for rate in rates]
        _scatter(axis, points, name, colour, marker)
    axis.set(
        xscale="log", yscale="log", xlabel="operations a byte [FLOP/B]", ylabel="achieved [TFLOP/s]"
    )
    axis.grid(visible=True, alpha=0.3)
    return _with_legend(figure)


def _shown(case: Measured) -> list[Row]:
    """The rows of ours and its rivals that were timed."""
    return [row for row in (case.ours, *case.rivals) if row.status == TIMED]


def _styles(cases: Sequence[Measured]) -> dict[str, tuple[str, str]]:
    """Colour and marker of ours and of each baseline that was timed, in the order of the cases."""
    names = {}
    for case in cases:
        names |= dict.fromkeys(row.name for row in _shown(case))
    ours = {case.ours.name for case in cases}
    rest = iter(_BASELINES)
    styles = {}
    for name in names:
        styles[name] = _OURS
        if name not in ours:
            styles[name] = next(rest, (LINE, "."))
    return styles


def _by_case(
    drawn: Sequence[Measured],
    values: Sequence[Mapping[str, float]],
    label: str,
    within: float,
    hollow: Sequence[set[str]] | None = None,
) -> Drawing:
    """The values of each case in a line of its own, on a logarithmic axis.

    Args:
        drawn: the cases, from the top.
        values: name of an implementation -> its value, for each case.
        label: the label of the axis.
        within: a value that the axis holds, too.
        hollow: the names whose markers are not filled, for each case; None to fill all.
    """
    named = set().union(*values)
    look = {name: style for name, style in _styles(drawn).items() if name in named}
    if hollow is None:
        hollow = [set() for _ in drawn]
    figure = Drawing(_FRAME + _LINE * len(drawn) + _ENTRY * (len(look) + 1))
    axis = figure.subplots()
    for name, (colour, marker) in look.items():
        points = [(of_case[name], y) for y, of_case in enumerate(values) if name in of_case]
        filled = [name not in hollow[y] for _, y in points]
        _scatter(axis, points, name, colour, marker, filled)
    low = min(within, *(min(of_case.values()) for of_case in values)) / 1.4
    high = max(within, *(max(of_case.values()) for of_case in values)) * 1.4
    axis.set(xscale="log", xlim=(low, high), ylim=(len(drawn) - 0.4, -0.6), xlabel=label)
    axis.set_yticks(range(len(drawn)), [short_label(case) for case in drawn], fontsize=SMALL - 1.5)
    ticks = _ticks(low, high)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=SMALL - 1)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(visible=True, axis="x", alpha=0.3)
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`; 2 and 5 times each, too, where there are few."""
    steps = (1, 2, 5)
    if high / low >= 100:
        steps = (1,)
    ticks = []
    for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))):
        multiples = [step * 10.0**power for step in steps]
        ticks += [tick for tick in multiples if low <= tick <= high]
    return ticks


def _scatter(
    axis,
    points: Sequence[tuple[float, float]],
    name: str,
    colour: str,
    marker: str,
    filled: Sequence[bool] | None = None,
) -> None:
    """Draw the points of one implementation, hollow where they are not `filled`."""
    filled = filled or [True] * len(points)
    faces = [to_rgba(colour, 0.85 * is_filled) for is_filled in filled]
    axis.scatter(
        *zip(*points, strict=True),
        s=26,
        facecolors=faces,
        edgecolors=colour,
        marker=marker,
        label=name,
        zorder=3,
    )


def _with_legend(figure: Drawing) -> Drawing:
    figure.legend(loc="outside lower center", fontsize=SMALL - 1)
    return figure

"""Timed kernels: speed-up by shape, achieved bandwidth, and operations under the roof of memory and
arithmetic.

Drawn are ours and its rivals; other forms of ours and controls have a table.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import NullLocator

from ...bench.record import TIMED, Measured, Row, Run
from .canvas import BLUE, GREEN, INK, LINE, ORANGE, SKY, SMALL, VERMILION, Drawing

_OURS = (BLUE, "o")
_BASELINES = (
    (ORANGE, "s"),
    (GREEN, "^"),
    (VERMILION, "D"),
    (SKY, "v"),
    ("#CC79A7", "P"),
    (INK, "X"),
)
_LINE = 0.2  # inches of height: a case, an entry of the legend, the axis
_ENTRY = 0.17
_FRAME = 0.9


def short_label(case: Measured) -> str:
    """`4096 x 11008, tokens 8`: rows and columns of the weight, then what else sets the case
    apart."""
    values = {**case.shape, **case.settings}
    parts = (
        [f"{values.pop('rows')} x {values.pop('columns')}"]
        if {"rows", "columns"} <= set(values)
        else []
    )
    parts += [
        f"{name} {value}" if name in case.shape else str(value) for name, value in values.items()
    ]
    return ", ".join(parts)


def speedups(cases: Sequence[Measured]) -> Drawing:
    """How many times faster than each baseline, a line a case; left of 1 is where ours loses.
    Hollow where wall times are compared."""
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
    """Achieved operations against operations a byte, under the roof of the measured copy and
    product."""
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
        points = [
            (at, row.tflop_s)
            for at, case in zip(intensity, drawn, strict=True)
            for row in _shown(case)
            if row.name == name
        ]
        _scatter(axis, points, name, colour, marker)
    axis.set(
        xscale="log", yscale="log", xlabel="operations a byte [FLOP/B]", ylabel="achieved [TFLOP/s]"
    )
    axis.grid(visible=True, alpha=0.3)
    return _with_legend(figure)


def _shown(case: Measured) -> list[Row]:
    """Ours and its rivals, of those timed."""
    return [row for row in (case.ours, *case.rivals) if row.status == TIMED]


def _styles(cases: Sequence[Measured]) -> dict[str, tuple[str, str]]:
    """Colour and marker of ours and of each baseline that was timed, in the order in which the
    cases name them."""
    names = dict.fromkeys(row.name for case in cases for row in _shown(case))
    ours = {case.ours.name for case in cases}
    rest = iter(_BASELINES)
    return {name: _OURS if name in ours else next(rest, (LINE, ".")) for name in names}


def _by_case(
    drawn: Sequence[Measured],
    values: Sequence[Mapping[str, float]],
    label: str,
    within: float,
    hollow: Sequence[set[str]] = (),
) -> Drawing:
    """The values of each case in a line of its own, on a logarithmic axis that holds `within` too;
    `hollow`: the names of each case whose markers are not filled."""
    look = {
        name: style for name, style in _styles(drawn).items() if any(name in of for of in values)
    }
    figure = Drawing(_FRAME + _LINE * len(drawn) + _ENTRY * (len(look) + 1))
    axis = figure.subplots()
    for name, (colour, marker) in look.items():
        points = [(of[name], y) for y, of in enumerate(values) if name in of]
        filled = [not (hollow and name in hollow[y]) for _, y in points]
        _scatter(axis, points, name, colour, marker, filled)
    every = [value for of in values for value in of.values()]
    low = min(*every, within) / 1.4
    high = max(*every, within) * 1.4
    axis.set(xscale="log", xlim=(low, high), ylim=(len(drawn) - 0.4, -0.6), xlabel=label)
    axis.set_yticks(range(len(drawn)), [short_label(case) for case in drawn], fontsize=SMALL - 1.5)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))))
    ticks = [
        step * 10.0**power
        for power in powers
        for step in steps
        if low <= step * 10.0**power <= high
    ]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=SMALL - 1)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(visible=True, axis="x", alpha=0.3)
    return figure


def _scatter(
    axis, points: Sequence[tuple[float, float]], name: str, colour: str, marker: str, filled=None
) -> None:
    faces = [to_rgba(colour, 0.85 if one else 0) for one in filled or [True] * len(points)]
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

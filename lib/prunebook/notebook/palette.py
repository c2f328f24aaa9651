"""Colours that colour-blind readers can tell apart, and the figures that pages draw with them.

The colours are those of Okabe and Ito. Each has a marker, a line and a hatch of its own, so colour
is never the only difference. The helpers draw on an axis of matplotlib and name its axes; units
stand in brackets at the end of a name, e.g. `weights removed [%]`.

    from prunebook.notebook import palette

    left, right = palette.panels(2)
    palette.lines(left, levels, {"Wanda": wanda, "RIA": ria}, xlabel="sparsity [%]",
                  ylabel="perplexity", log="y")
    palette.reference(left, y=dense, label="dense")
    palette.bars(right, ["q", "k", "v"], errors, ylabel="squared error of the output [%]")
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .method_styles import method_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .gaps import Gap

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
YELLOW = "#F0E442"
BLACK = "#000000"
GREY = "#A6A6A6"
PALE = "#EBEBEB"  # what is absent, or still to come
WHITE = "#FFFFFF"


class Style(NamedTuple):
    """How one series looks: its colour, and what tells it apart without the colour."""

    colour: str
    marker: str
    line: str | tuple
    hatch: str


# in the order in which series take them
STYLES = (
    Style(BLUE, "o", "-", ""),
    Style(ORANGE, "s", "--", "//"),
    Style(GREEN, "^", ":", ".."),
    Style(VERMILION, "D", "-.", "xx"),
    Style(PURPLE, "v", (0, (5, 1)), "\\\\"),
    Style(SKY, "P", (0, (3, 1, 1, 1)), "++"),
    Style(BLACK, "x", (0, (1, 3)), "oo"),
)
COLOURS = tuple(style.colour for style in STYLES)
_STYLE_OF = {style.colour: style for style in STYLES}
_MOST_MARKERS = 40  # points of a line beyond which markers would hide each other


def panels(
    count: int = 1, *, width: float | None = None, height: float = 4.0, **options: Any
) -> Any:
    """A new figure with axes side by side.

    Args:
        count: number of axes.
        width: width of the figure in inches; None: 6.5 for one axis, 5 for each of several.
        height: height of the figure in inches.
        options: passed to `pyplot.subplots`, e.g. `sharey=True`.

    Returns:
        The axis, or an array of `count` axes.
    """
    from matplotlib import pyplot

    if width is None:
        width = max(6.5, 5.0 * count)
    _, axes = pyplot.subplots(1, count, figsize=(width, height), layout="constrained", **options)
    return axes


def lines(
    axis: "Axes",
    x: ArrayLike | Mapping[str, ArrayLike] | None,
    series: Mapping[str, ArrayLike],
    *,
    colours: Sequence[str] | Mapping[str, str] = COLOURS,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    log: str = "",
    **look: Any,
) -> None:
    """Draw a line for each series. Lines of few points have markers.

    Args:
        axis: where to draw.
        x: values that all series share, `[points]`; those of each series by label; or None for
            0, 1, 2, ...
        series: label -> values, `[points]`. A label that begins with "_" is not in the legend.
        colours: colours in the order of the series, or by label.
        xlabel: name of the x axis, its unit in brackets; empty: as it is.
        ylabel: name of the y axis, likewise.
        title: title of the axis; empty: as it is.
        log: axes with a logarithmic scale: "x", "y" or "xy".
        look: further options of `axis.plot` for all lines, e.g. `linewidth=0.8`.
    """
    for style, label, values in _styled(series, colours):
        values = np.asarray(values)
        places = x
        if isinstance(x, Mapping):
            places = x[label]
        if places is None:
            places = np.arange(len(values))
        own = {"color": style.colour, "linestyle": style.line, "label": label, "markersize": 5}
        if len(values) <= _MOST_MARKERS:
            own["marker"] = style.marker
        axis.plot(places, values, **{**own, **look})
    _finish(axis, series, xlabel=xlabel, ylabel=ylabel, title=title, log=log)


def bars(
    axis: "Axes",
    labels: Sequence[str],
    series: Mapping[str, ArrayLike] | ArrayLike,
    *,
    colours: Sequence[str] | Mapping[str, str] = COLOURS,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    rotation: float = 0.0,
    **look: Any,
) -> None:
    """Draw a group of bars for each label, with one bar of each series side by side.

    Args:
        axis: where to draw.
        labels: names of the groups, `[groups]`.
        series: label -> heights, `[groups]`, or the heights alone where there is one series.
        colours: colours in the order of the series, or by label.
        xlabel: name of the x axis; empty: as it is.
        ylabel: name of the y axis, its unit in brackets; empty: as it is.
        title: title of the axis; empty: as it is.
        rotation: angle of the groups' names in degrees.
        look: further options of `axis.bar` for all bars, e.g. `alpha=0.5`.
    """
    if not isinstance(series, Mapping):
        series = {"_": series}
    places = np.arange(len(labels))
    width = 0.8 / len(series)
    for index, (style, label, heights) in enumerate(_styled(series, colours)):
        shift = width * (index - (len(series) - 1) / 2)
        own = {"color": style.colour, "label": label}
        # The first series is plain, the others are hatched: both differ in print, too.
        if index:
            own |= {"hatch": style.hatch, "edgecolor": WHITE, "linewidth": 0.0}
        axis.bar(places + shift, np.asarray(heights), width, **{**own, **look})
    alignment = "right" if rotation else "center"
    axis.set_xticks(places, labels, rotation=rotation, ha=alignment)
    _finish(axis, series, xlabel=xlabel, ylabel=ylabel, title=title)


def scatter(
    axis: "Axes",
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    colours: Sequence[str] | Mapping[str, str] = COLOURS,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    log: str = "",
    size: float = 14.0,
    **look: Any,
) -> None:
    """Draw the points of each series.

    Args:
        axis: where to draw.
        series: label -> x and y values, `[points]` each.
        colours: colours in the order of the series, or by label.
        xlabel: name of the x axis, its unit in brackets; empty: as it is.
        ylabel: name of the y axis, likewise.
        title: title of the axis; empty: as it is.
        log: axes with a logarithmic scale: "x", "y" or "xy".
        size: area of a marker in square points.
        look: further options of `axis.scatter` for all points, e.g. `alpha=1`.
    """
    for style, label, (x, y) in _styled(series, colours):
        own = {"color": style.colour, "marker": style.marker, "label": label, "alpha": 0.7}
        axis.scatter(np.asarray(x), np.asarray(y), s=size, **{**own, **look})
    _finish(axis, series, xlabel=xlabel, ylabel=ylabel, title=title, log=log)


def gains(
    axis: "Axes",
    x: ArrayLike,
    gaps: Sequence["Gap"],
    *,
    colour: str = VERMILION,
    xlabel: str = "",
    ylabel: str = "gain [nats per token]",
    title: str = "Gain, with 95 % intervals",
) -> None:
    """Draw gaps with their 95 % intervals, and the line of no difference.

    Args:
        axis: where to draw.
        x: where each gap stands, `[points]`.
        gaps: the gaps, one a point.
        colour: a colour of the palette.
        xlabel: name of the x axis, its unit in brackets; empty: as it is.
        ylabel: name of the y axis.
        title: title of the axis.
    """
    means = [each.mean for each in gaps]
    errors = [each.half_width for each in gaps]
    style = _style(colour)
    axis.errorbar(
        x, means, errors, color=style.colour, marker=style.marker, linestyle=style.line, capsize=4
    )
    reference(axis, y=0)
    _finish(axis, {}, xlabel=xlabel, ylabel=ylabel, title=title)


def reference(
    axis: "Axes", *, x: float | None = None, y: float | None = None, label: str | None = None
) -> None:
    """Draw a thin dashed black line through the axis, e.g. what the dense model has.

    Args:
        axis: where to draw.
        x: place of a vertical line; None: there is none.
        y: height of a horizontal line; None: there is none.
        label: name in the legend; None: not in it.
    """
    look = {"color": BLACK, "linewidth": 0.8, "linestyle": "--", "label": label}
    if x is not None:
        axis.axvline(x, **look)
    if y is not None:
        axis.axhline(y, **look)
    if label:
        axis.legend()


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue of a colour of the palette, each in [0, 1], for pictures of pixels."""
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def _style(colour: str) -> Style:
    """The style of a colour; one that is not in `STYLES` is drawn as the first, in that colour."""
    return _STYLE_OF.get(colour) or STYLES[0]._replace(colour=colour)


def _styled(
    series: Mapping[str, Any], colours: Sequence[str] | Mapping[str, str]
) -> Iterable[tuple[Style, str, Any]]:
    """Style, label and values of each series; colours begin again where they run out."""
    if colours is COLOURS:
        styles = _default_styles(series)
    else:
        if not isinstance(colours, Mapping):
            colours = dict(zip(series, itertools.cycle(colours), strict=False))
        styles = {label: _style(colours[label]) for label in series}
    for label, values in series.items():
        yield styles[label], label, values


def _default_styles(labels: Iterable[str]) -> dict[str, Style]:
    """Label -> style: a method has its own; other series take the free ones in their order."""
    labels = list(labels)
    styles = {}
    for label in labels:
        own = method_style(label)
        if own and own[0] not in {style.colour for style in styles.values()}:
            colour, marker = own
            styles[label] = _style(colour)._replace(marker=marker)
    taken = {style.colour for style in styles.values()}
    free = itertools.cycle([style for style in STYLES if style.colour not in taken] or STYLES)
    return {label: styles.get(label) or next(free) for label in labels}


def _finish(
    axis: "Axes", series: Mapping[str, Any], *, xlabel: str, ylabel: str, title: str, log: str = ""
) -> None:
    """Name the axes, set their scales, and show the legend where there is something to tell."""
    names = {"xlabel": xlabel, "ylabel": ylabel, "title": title}
    scales = {f"{name}scale": "log" for name in log}
    axis.set(**{name: text for name, text in names.items() if text}, **scales)
    if any(not label.startswith("_") for label in series):
        axis.legend()

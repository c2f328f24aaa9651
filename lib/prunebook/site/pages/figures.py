"""What the boards' figures share: the sheet, styles, intervals, SVG that is always the same."""

import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ...notebook.method_styles import METHOD_STYLES, method_style
from ...notebook.palette import COLOURS

_MARKERS = "os^DvPX*hpd<>8"


def styles_of(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Method -> colour and marker: a method of the book looks the same in all figures.

    Others, e.g. controls, take what no method of the book has: colour is never the only difference.
    """
    spare = itertools.cycle(
        pair for pair in itertools.product(COLOURS, _MARKERS) if pair not in METHOD_STYLES.values()
    )
    styles = {}
    for method in methods:
        styles[method] = method_style(method) or next(spare)
    return styles


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of some draws, by the t distribution; 0 for one draw.

    Args:
        values: what each draw gave.
    """
    draws = len(values)
    if draws < 2:
        return 0.0
    error = float(np.std(values, ddof=1)) / draws**0.5
    return float(stdtrit(draws - 1, 0.975)) * error


def new_figure() -> tuple[Any, Any]:
    """An empty figure of matplotlib and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    return figure, figure.add_subplot()


def draw_dense(axis, perplexity: float) -> None:
    """Draw the perplexity of the dense model as a line across the axes."""
    axis.axhline(perplexity, color="black", linewidth=0.9, linestyle="--", label="dense")


def to_svg(figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "prunebook", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()

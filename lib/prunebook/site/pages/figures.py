"""What the boards' figures share: the sheet, colours with markers, SVG that is always the same."""

import io
from typing import Any

from ...notebook.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

# A colour with a marker for each method: colour is never the only difference.
STYLES = (
    (BLUE, "o"),
    (ORANGE, "s"),
    (GREEN, "^"),
    (VERMILION, "D"),
    (PURPLE, "v"),
    (SKY, "P"),
)


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

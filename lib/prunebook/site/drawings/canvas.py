"""What the drawings share: the sheet, shades, matrices drawn as cells."""

import io

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...errors import UserError
from ...notebook.palette import BLUE

# Shades beside the colours of the palette.
EMPTY = "#F2F2F2"
LINE = "#9A9A9A"
INK = "#222222"
TEXT = 11  # points on a sheet 4.8 inches wide, readable at the width of a phone
SMALL = 9.5


class Drawing(Figure):
    """A figure that shows itself as SVG, with the same bytes for the same data."""

    def __init__(self, height: float):
        super().__init__(figsize=(4.8, height), layout="constrained")

    def _repr_svg_(self) -> str:
        file = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": "prunebook"}):
            self.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()


def as_array(values, dimensions: int, name: str) -> np.ndarray:
    """`values` (nested lists, numpy or torch) as an array.

    Args:
        values: the numbers.
        dimensions: the number of dimensions that the drawing needs.
        name: what messages call the values.

    Raises:
        UserError: the values have another number of dimensions.
    """
    array = np.asarray(values)
    if array.ndim != dimensions:
        raise UserError(f"{name} has {array.ndim} dimensions; this drawing needs {dimensions}")
    return array


def check_same_shape(array: np.ndarray, other: np.ndarray, name: str, other_name: str) -> None:
    """Raise a `UserError` if the shapes differ."""
    if array.shape != other.shape:
        raise UserError(
            f"{name} has shape {array.shape}; it must be that of {other_name}, {other.shape}"
        )


def shades(weight: np.ndarray, colour: str = BLUE) -> np.ndarray:
    """RGB of each weight, `[..., 3]`.

    A smaller magnitude is paler, but never as pale as a zero.
    """
    size = np.abs(weight) / np.abs(weight).max()
    strength = (0.35 + 0.65 * size)[..., None]
    return 1 - strength * (1 - np.array(to_rgb(colour)))


def cells(axis, colours: np.ndarray, top: float = 0, left: float = 0) -> None:
    """Draw a matrix of colours, `[rows, columns, 3]`, as unit cells.

    Args:
        axis: the axes to draw in.
        colours: RGB of each cell.
        top: how far below 0 the first row begins.
        left: where the first column begins.
    """
    for (i, j), colour in zip(np.ndindex(colours.shape[:2]), colours.reshape(-1, 3), strict=True):
        corner = (left + j, -top - i - 1)
        axis.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=1))


def masked_cells(axis, weight: np.ndarray, mask: np.ndarray, top: float = 0) -> None:
    """Draw a matrix with its kept weights shaded by magnitude and the removed ones empty."""
    cells(axis, np.where(mask[..., None], shades(weight), to_rgb(EMPTY)), top)


def bare(axis, columns: float, rows: float, title: str) -> None:
    """An axis without ticks or frame whose data units are the cells of `rows x columns`."""
    axis.set(xlim=(-0.3, columns + 0.3), ylim=(-rows - 0.3, 0.3), aspect="equal")
    axis.set_title(title, fontsize=TEXT)
    axis.axis("off")

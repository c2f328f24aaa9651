"""Drawings of what is zero: granularity, the layout of n:m, comparison groups."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from ...errors import UserError
from ...notebook.palette import BLUE, ORANGE
from .canvas import (
    EMPTY,
    INK,
    LINE,
    SMALL,
    TEXT,
    Drawing,
    as_array,
    bare,
    check_same_shape,
    masked_cells,
)


def granularity(weight, masks: Mapping, blocks: Sequence[bool]) -> Drawing:
    """One weight under masks of different shape, and a stack of blocks some of which are removed.

    Args:
        weight: `[out, in]`.
        masks: title -> mask of the weight's shape, three in all.
        blocks: for each decoder block from the first, whether it is kept.

    Raises:
        UserError: other than three masks, or a mask of another shape.
    """
    weight = as_array(weight, 2, "weight")
    if len(masks) != 3:
        raise UserError(f"masks holds {len(masks)} entries; this drawing needs 3")
    figure = Drawing(4.6)
    axes = figure.subplots(2, 2).flatten()
    for axis, (title, mask) in zip(axes, masks.items(), strict=False):
        mask = as_array(mask, 2, f"mask {title!r}")
        check_same_shape(mask, weight, f"mask {title!r}", "the weight")
        masked_cells(axis, weight, mask)
        bare(axis, weight.shape[1], weight.shape[0], f"{title}\n{1 - mask.mean():.0%} zero")
    axis = axes[3]
    count = len(blocks)
    # The first block is at the bottom, as data flows upwards.
    for i, kept in enumerate(blocks):
        style = {"facecolor": EMPTY, "edgecolor": LINE, "ls": "--"}
        if kept:
            style = {"facecolor": BLUE, "edgecolor": BLUE}
        axis.add_patch(
            Rectangle((0.2 * count, i - count + 0.15), 0.6 * count, 0.7, linewidth=1, **style)
        )
    axis.annotate(
        "", (0.1 * count, 0.2), (0.1 * count, -count), arrowprops={"arrowstyle": "->", "color": INK}
    )
    bare(axis, count, count, f"whole blocks (depth)\n{1 - np.mean(blocks):.0%} gone")
    figure.supxlabel("darker: larger |w|; grey: removed", fontsize=TEXT)
    return figure


def n_of_m_row(row, mask, m: int) -> Drawing:
    """A row under n:m, and what is stored of it.

    Stored are the kept values and, for each, its place in its group in binary.

    Args:
        row: weights, `[in]`.
        mask: `[in]`, the same number kept in every group of m.
        m: length of a group.

    Raises:
        UserError: another shape, or a mask that keeps other numbers in some groups.
    """
    row = as_array(row, 1, "row")
    mask = as_array(mask, 1, "mask").astype(bool)
    check_same_shape(mask, row, "mask", "the row")
    if len(row) % m != 0 or len(set(mask.reshape(-1, m).sum(1))) != 1:
        raise UserError(f"mask does not keep the same number of weights in each group of {m}")
    bits = int(m - 1).bit_length()
    kept = np.flatnonzero(mask)
    figure = Drawing(2.6)
    axis = figure.subplots()
    step = len(row) / len(kept)
    for j, (value, keep) in enumerate(zip(row, mask, strict=True)):
        if keep:
            _box(axis, (j, 0), 1, f"{value:.1f}", BLUE)
        else:
            _box(axis, (j, 0), 1, "0", EMPTY)
    for k, j in enumerate(kept):
        left = k * step
        _box(axis, (left, -2.6), step, f"{row[j]:.1f}", BLUE)
        _box(axis, (left, -4.7), step, f"{j % m:0{bits}b}", ORANGE)
        axis.plot([j + 0.5, left + step / 2], [-0.05, -1.55], color=LINE, linewidth=1, zorder=0)
    for start in range(0, len(row), m):
        axis.add_patch(Rectangle((start, 0), m, 1, fill=False, edgecolor=INK, linewidth=2.5))
    axis.text(0, 1.2, f"a row: groups of {m}", fontsize=TEXT, color=INK, va="bottom")
    axis.text(0, -2.7, "stored: the values", fontsize=TEXT, color=INK, va="top")
    axis.text(
        0,
        -4.8,
        f"stored: places in the group, {bits} bits each",
        fontsize=TEXT,
        color=INK,
        va="top",
    )
    axis.set(xlim=(-0.1, len(row) + 0.1), ylim=(-5.7, 2.1))
    axis.axis("off")
    return figure


def _box(axis, corner: tuple[float, float], width: float, text: str, colour: str) -> None:
    """Draw a box with a text in it."""
    axis.add_patch(Rectangle(corner, width, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    ink = INK
    if colour == BLUE:
        ink = "white"
    axis.text(
        corner[0] + width / 2,
        corner[1] + 0.48,
        text,
        fontsize=TEXT,
        color=ink,
        ha="center",
        va="center",
    )


def comparison_groups(layers: Sequence, masks: Mapping[str, Sequence]) -> Drawing:
    """The same scores ranked in different groups.

    Each group is framed, and the fraction of zeros stands beside each row.

    Args:
        layers: scores of each layer, `[out, in]`, all of one width.
        masks: scope (`row`, `layer` or `model`) -> the mask of each layer.

    Raises:
        UserError: an unknown scope, or a mask of another shape.
    """
    layers = [as_array(scores, 2, "scores of a layer") for scores in layers]
    height = sum(len(scores) for scores in layers) + len(layers) - 1
    width = layers[0].shape[1]
    figure = Drawing(2.6)
    axes = figure.subplots(1, len(masks), squeeze=False)[0]
    for axis, (scope, masks_of_layers) in zip(axes, masks.items(), strict=True):
        if scope not in ("row", "layer", "model"):
            raise UserError(f"scope {scope!r} is unknown; use 'row', 'layer', 'model'")
        top = 0
        for scores, mask in zip(layers, masks_of_layers, strict=True):
            _layer(axis, scores, mask, scope, top)
            top += len(scores) + 1
        if scope == "model":
            _frame(axis, width, 0, height)
        bare(axis, width + 3, height, f"per {scope}")
    _number_layers(axes[0], layers)
    figure.supxlabel("orange: what competes; number: zeros in the row", fontsize=TEXT)
    return figure


def _layer(axis, scores: np.ndarray, mask, scope: str, top: float) -> None:
    """Draw one layer from `top` on: its mask, the zeros of each row, the frames of its groups."""
    mask = as_array(mask, 2, "mask")
    check_same_shape(mask, scores, "mask", "the scores")
    masked_cells(axis, scores, mask, top)
    rows, width = scores.shape
    for i, row in enumerate(mask):
        share = f"{1 - row.mean():.0%}"
        axis.text(width + 0.3, -top - i - 0.5, share, fontsize=SMALL, va="center")
        if scope == "row":
            _frame(axis, width, top + i, 1)
    if scope == "layer":
        _frame(axis, width, top, rows)


def _number_layers(axis, layers: Sequence[np.ndarray]) -> None:
    """Write the numbers of the layers at the left."""
    top = 0
    for number, scores in enumerate(layers, 1):
        middle = -top - len(scores) / 2
        axis.text(
            -0.4, middle, f"layer {number}", fontsize=SMALL, ha="right", va="center", rotation=90
        )
        top += len(scores) + 1


def _frame(axis, width: float, top: float, height: float) -> None:
    """Frame the rows from `top` on that compete with each other."""
    axis.add_patch(
        Rectangle((0, -top - height), width, height, fill=False, edgecolor=ORANGE, linewidth=2)
    )

"""Drawings of what is zero: granularity, the layout of n:m, comparison groups."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from ...errors import UserError
from .canvas import (
    BLUE,
    EMPTY,
    INK,
    LINE,
    ORANGE,
    SMALL,
    TEXT,
    Drawing,
    as_array,
    bare,
    check_same_shape,
    masked_cells,
)


def granularity(weight, masks: Mapping, blocks: Sequence[bool]) -> Drawing:
    """One weight under masks of different shape, and a stack of blocks some of which are gone.

    Args:
        weight: `[out, in]`.
        masks: three masks of that shape under their titles.
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
    for i, kept in enumerate(blocks):  # first block at the bottom, as data flows upwards
        style = (
            {"facecolor": BLUE, "edgecolor": BLUE}
            if kept
            else {"facecolor": EMPTY, "edgecolor": LINE, "ls": "--"}
        )
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
    """A row under n:m, and what is stored of it: kept values and, for each, its place in its group
    in binary.

    Args:
        row: `[in]`.
        mask: `[in]`, the same number kept in every group of m.
        m: group length.

    Raises:
        UserError: another shape, or a mask that keeps other numbers in some groups.
    """
    row = as_array(row, 1, "row")
    mask = as_array(mask, 1, "mask").astype(bool)
    check_same_shape(mask, row, "mask", "the row")
    counts = set(mask.reshape(-1, m).sum(1)) if len(row) % m == 0 else set()
    if len(counts) != 1:
        raise UserError(f"mask does not keep the same number of weights in each group of {m}")
    bits = int(m - 1).bit_length()
    kept = np.flatnonzero(mask)
    figure = Drawing(2.6)
    axis = figure.subplots()
    step = len(row) / len(kept)
    for j, (value, keep) in enumerate(zip(row, mask, strict=True)):
        _box(axis, (j, 0), 1, f"{value:.1f}" if keep else "0", BLUE if keep else EMPTY)
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
    axis.add_patch(Rectangle(corner, width, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    ink = "white" if colour == BLUE else INK
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
    """The same scores ranked in different groups: each group is framed, the fraction of zeros
    stands by each row.

    Args:
        layers: scores of each layer, `[out, in]`, all of one width.
        masks: scope (`row`, `layer` or `model`) -> the mask of each layer.

    Raises:
        UserError: an unknown scope, or a mask of another shape.
    """
    layers = [as_array(scores, 2, "scores of a layer") for scores in layers]
    width = layers[0].shape[1]
    height = sum(len(scores) for scores in layers) + len(layers) - 1
    figure = Drawing(2.6)
    for axis, (scope, of_layers) in zip(
        figure.subplots(1, len(masks), squeeze=False)[0], masks.items(), strict=True
    ):
        if scope not in ("row", "layer", "model"):
            raise UserError(f"scope {scope!r} is unknown; use 'row', 'layer', 'model'")
        top = 0
        for scores, mask in zip(layers, of_layers, strict=True):
            mask = as_array(mask, 2, "mask")
            check_same_shape(mask, scores, "mask", "the scores")
            masked_cells(axis, scores, mask, top)
            for i, row in enumerate(mask):
                axis.text(
                    width + 0.3,
                    -top - i - 0.5,
                    f"{1 - row.mean():.0%}",
                    fontsize=SMALL,
                    va="center",
                )
                if scope == "row":
                    _frame(axis, width, top + i, 1)
            if scope == "layer":
                _frame(axis, width, top, len(scores))
            top += len(scores) + 1
        if scope == "model":
            _frame(axis, width, 0, height)
        bare(axis, width + 3, height, f"per {scope}")
    top = 0
    for number, scores in enumerate(layers, 1):
        middle = -top - len(scores) / 2
        figure.axes[0].text(
            -0.4, middle, f"layer {number}", fontsize=SMALL, ha="right", va="center", rotation=90
        )
        top += len(scores) + 1
    figure.supxlabel("orange: what competes; number: zeros in the row", fontsize=TEXT)
    return figure


def _frame(axis, width: float, top: float, height: float) -> None:
    axis.add_patch(
        Rectangle((0, -top - height), width, height, fill=False, edgecolor=ORANGE, linewidth=2)
    )

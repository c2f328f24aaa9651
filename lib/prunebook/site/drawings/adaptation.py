"""Drawings of weights that change: an adapter merged into zeros, an optimal-brain-surgeon step."""

import numpy as np

from ...errors import UserError
from ...notebook.palette import BLUE, GREEN, ORANGE, VERMILION
from .canvas import (
    INK,
    LINE,
    TEXT,
    Drawing,
    as_array,
    bare,
    cells,
    check_same_shape,
    masked_cells,
    shades,
)


def lora_merge(weight, B, A) -> Drawing:
    """A sparse weight, a low-rank product, and their sum: merged, and masked again.

    Args:
        weight: `[out, in]` with zeros.
        B: `[out, rank]`.
        A: `[rank, in]`.

    Raises:
        UserError: the product of B and A has another shape than the weight.
    """
    weight = as_array(weight, 2, "weight")
    B = as_array(B, 2, "B")
    A = as_array(A, 2, "A")
    check_same_shape(B @ A, weight, "B A", "the weight")
    merged = weight + B @ A
    rows, columns = weight.shape
    rank = len(A)
    figure = Drawing(4.4)
    axes = figure.subplots(2, 2)
    cells(axes[0, 1], shades(B, ORANGE))
    cells(axes[0, 1], shades(A, GREEN), left=rank + 1)
    bare(axes[0, 1], rank + 1 + columns, rows, f"B and A, rank {rank}\n{B.size + A.size} trained")
    panels = (
        (axes[0, 0], "W", weight),
        (axes[1, 0], "W + BA", merged),
        (axes[1, 1], "mask ⊙ (W + BA)", np.where(weight != 0, merged, 0)),
    )
    for axis, title, matrix in panels:
        masked_cells(axis, matrix, matrix != 0)
        bare(axis, columns, rows, f"{title}\n{int((matrix == 0).sum())} of {matrix.size} zero")
    figure.supxlabel("darker: larger; grey: zero", fontsize=TEXT)
    return figure


def obs_update(hessian, weight, updated) -> Drawing:
    """The error of two weights around their trained values, and what removing the first one costs.

    Contours of `(v - w) H (v - w)^T`; they pass through the point where the second weight stays as
    it was and through the point where it was updated.

    Args:
        hessian: `[2, 2]`, symmetric and positive definite.
        weight: the trained weights, `[2]`.
        updated: the weights after the update, `[2]`; the first is zero.

    Raises:
        UserError: `updated` does not remove the first weight.
    """
    H = as_array(hessian, 2, "hessian")
    w = as_array(weight, 1, "weight")
    updated = as_array(updated, 1, "updated")
    if updated[0] != 0:
        raise UserError(
            f"updated {updated.tolist()} keeps the first weight; its first entry must be 0"
        )
    points = (
        ("trained", w, INK, "o"),
        ("removed", np.array([0, w[1]]), VERMILION, "s"),
        ("updated", updated, BLUE, "D"),
    )
    reach = 2.2 * max(np.abs(point - w).max() for _, point, _, _ in points)
    x, y = np.meshgrid(*(np.linspace(centre - reach, centre + reach, 200) for centre in w))
    apart = np.stack([x - w[0], y - w[1]], axis=-1)
    errors = [float((point - w) @ H @ (point - w)) for _, point, _, _ in points]
    figure = Drawing(3.9)
    axis = figure.subplots()
    field = np.einsum("xyi,ij,xyj->xy", apart, H, apart)
    axis.contour(x, y, field, levels=sorted({errors[1], errors[2]}), colors=[LINE], linewidths=1.5)
    axis.axvline(0, color=GREEN, linestyle="--", linewidth=1.5, label="first weight zero")
    for (label, point, colour, marker), error in zip(points, errors, strict=True):
        axis.plot(
            *point,
            marker,
            color=colour,
            markersize=8,
            label=f"{label}: error {error:.3g}",
            linestyle="none",
        )
    axis.set_xlabel("first weight", fontsize=TEXT)
    axis.set_ylabel("second weight", fontsize=TEXT)
    axis.tick_params(labelsize=TEXT)
    axis.set_aspect("equal")
    figure.legend(loc="outside lower center", ncols=2, fontsize=TEXT, frameon=False)
    return figure

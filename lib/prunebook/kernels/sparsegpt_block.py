"""SparseGPT's inner loop: prune the columns of one block; later ones make up for the error.

Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot (arXiv
2301.00774), algorithm 1, the loop over j; official code IST-DASLab/sparsegpt at 147d215.

Matrices are transposed, `[columns, rows]`: a column of W, one step of the algorithm, is contiguous.
"""

from __future__ import annotations

import torch

from ..errors import UserError
from .launch import jit, on_device, runs_natively, tl
from .masking import apply_mask
from .topk.n_of_m import keep_n_of_m

# Columns that are updated one by one before a product carries their errors to the others.
_REFERENCE_STRIP = 32
_STRIP = 16  # the same for the kernel
_ROWS = 32  # rows of a program, one for each thread
_REST = 32  # columns that one product of the kernel updates


def sparsegpt_block(
    W: torch.Tensor, keep: torch.Tensor, U: torch.Tensor, n_of_m: tuple[int, int] | None = None
) -> torch.Tensor:
    """Prune and update one block of columns in place; columns beyond it then lose `U_beyond^T E`.

    The error of column j is `e_j = w_j / U_jj` where pruned, else 0; the columns k > j of the block
    lose `U_jk e_j`. An n:m mask is chosen when its first column is reached, from weights as updated
    so far: of every m the m - n lowest `w_j^2 / U_jj^2` go, ties lowest index first.

    Args:
        W: float32 `[columns, rows]`, finite, of any strides; overwritten, exactly 0 where pruned.
        keep: bool `[columns, rows]`, True where kept; overwritten for n:m.
        U: float32 `[columns, columns]`, finite, with a positive diagonal: this block of the upper
            factor, `(H + lambda I)^-1 = U^T U`.
        n_of_m: (n, m) to keep n of every m columns, None where `keep` is given.

    Returns:
        The errors E, float32 `[columns, rows]`.

    Raises:
        UserError: arguments that do not fit each other. Finiteness is the caller's to check, once
            for all blocks.
    """
    _check(W, keep, U, n_of_m)
    if runs_natively(W, keep, U) and (n_of_m is None or _STRIP % n_of_m[1] == 0):
        return launch_block(W, keep, U, n_of_m)
    return sparsegpt_block_reference(W, keep, U, n_of_m)


def _check(
    W: torch.Tensor, keep: torch.Tensor, U: torch.Tensor, n_of_m: tuple[int, int] | None
) -> None:
    if W.dtype != torch.float32 or W.ndim != 2:
        raise UserError(f"W is {W.dtype} {list(W.shape)}; use torch.float32 [columns, rows]")
    columns, rows = W.shape
    for name, tensor, dtype, shape in (
        ("keep", keep, torch.bool, (columns, rows)),
        ("U", U, W.dtype, (columns, columns)),
    ):
        if tensor.dtype != dtype or tensor.shape != shape or tensor.device != W.device:
            text = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
            raise UserError(f"{name} is {text}; this W needs {dtype} {list(shape)} on {W.device}")
    if n_of_m is not None:
        n, m = n_of_m
        if not 0 < n < m or columns % m:
            raise UserError(
                f"n_of_m {n}:{m} is not allowed for {columns} columns; use 0 < n < m, m a divisor "
                "of them"
            )


def sparsegpt_block_reference(
    W: torch.Tensor, keep: torch.Tensor, U: torch.Tensor, n_of_m: tuple[int, int] | None
) -> torch.Tensor:
    """`sparsegpt_block` in torch, for checked arguments; it defines what the kernel computes."""
    E = torch.empty_like(W)
    n, m = n_of_m or (1, 1)
    strip = m * -(-_REFERENCE_STRIP // m)
    diagonal = U.diagonal()[:, None]
    for s1 in range(0, len(W), strip):
        s2 = min(s1 + strip, len(W))
        divisors = _divisors(diagonal[s1:s2], keep[s1:s2])
        # The views of all columns are made at once: one by one they take as long as their use.
        columns = zip(W[s1:s2], divisors, E[s1:s2], U[s1:s2], strict=True)
        for j, (w_j, divisor, e_j, u_j) in enumerate(columns, s1):
            # The mask of the next m columns, from weights as updated so far.
            if n_of_m and j % m == 0:
                group = slice(j, j + m)
                scores = W[group].square() / diagonal[group].square()
                keep[group] = keep_n_of_m(scores.T, n, m).T
                divisors[j - s1 : j - s1 + m] = _divisors(diagonal[group], keep[group])
            # e_j = w_j / U_jj where pruned; later columns of the strip lose U_jk e_j.
            torch.div(w_j, divisor, out=e_j)
            W[j + 1 : s2].addr_(u_j[j + 1 : s2], e_j, alpha=-1)
        # A product carries the errors of the strip to the rest of the block.
        W[s2:].addmm_(U[s1:s2, s2:].T, E[s1:s2], alpha=-1)
    apply_mask(W, keep)
    return E


def _divisors(diagonal: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`[columns, rows]`: U_jj where a weight is pruned; infinity where it is kept, for no error."""
    return diagonal / (~keep).float()


@on_device
def launch_block(
    W: torch.Tensor, keep: torch.Tensor, U: torch.Tensor, n_of_m: tuple[int, int] | None
) -> torch.Tensor:
    """`sparsegpt_block` by the kernel, for checked arguments and m a divisor of `_STRIP`."""
    columns, rows = W.shape
    n, m = n_of_m or (0, 0)
    E = torch.empty(columns, rows, dtype=torch.float32, device=W.device)
    if E.numel():
        _block_kernel[(-(-rows // _ROWS),)](
            W,
            keep,
            U,
            E,
            columns,
            rows,
            *W.stride(),
            *keep.stride(),
            *U.stride(),
            N=n,
            M=m,
            STRIP=_STRIP,
            ROWS=_ROWS,
            REST=_REST,
            num_warps=1,
        )
    return E


@jit
def _block_kernel(
    W,
    keep,
    U,
    E,
    columns,
    rows,
    w_column,
    w_row,
    keep_column,
    keep_row,
    u_row,
    u_column,
    N: tl.constexpr,
    M: tl.constexpr,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    REST: tl.constexpr,
):
    """One program for `ROWS` rows.

    It updates a strip of columns one by one in registers, then a product carries its errors on.
    """
    # To say less of `row` than is known keeps loads from being vectorised. A thread then has one
    # row, with all columns of the strip: the sums over columns below only pick a register, and
    # compile to nothing.
    row = tl.multiple_of(tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), 1)[None, :]
    place = tl.arange(0, STRIP)
    first = 0
    while first < columns:
        column = (first + place).to(tl.int64)
        inside = (column < columns)[:, None] & (row < rows)
        place_w = W + column[:, None] * w_column + row * w_row  # [STRIP, ROWS]
        place_keep = keep + column[:, None] * keep_column + row * keep_row
        w = tl.load(place_w, mask=inside, other=0.0)
        inverse = (
            1.0
            / tl.load(U + column * (u_row + u_column), mask=column < columns, other=1.0)[:, None]
        )
        gone = w != w if M else tl.load(place_keep, mask=inside, other=1) == 0  # n:m chooses below
        for j in tl.static_range(STRIP):
            if M and j % M == 0:
                chosen = _lowest(w * inverse, place[:, None], j, M - N, M)
                gone = tl.where(place[:, None] // M == j // M, chosen, gone)
            # x + -0.0 is x, so that the sum of one value and many of these needs no addition; 0.0 +
            # -0.0 is 0.0.
            e_j = tl.sum(tl.where((place[:, None] == j) & gone, w * inverse, -0.0), 0)
            u_j = tl.load(
                U + (first + j) * u_row + column * u_column,
                mask=(place > j) & (column < columns),
                other=0.0,
            )
            w -= u_j[:, None] * e_j[None, :]
        e = tl.where(gone, w * inverse, 0.0)
        tl.store(place_w, tl.where(gone, 0.0, w), mask=inside)
        tl.store(E + column[:, None] * rows + row, e, mask=inside)
        if M:
            tl.store(place_keep, gone == 0, mask=inside)
        start = first + STRIP
        while start < columns:
            later = (start + tl.arange(0, REST)).to(tl.int64)[:, None]
            u = tl.load(
                U + column[None, :] * u_row + later * u_column, mask=later < columns, other=0.0
            )
            place_rest = W + later * w_column + row * w_row
            rest_inside = (later < columns) & (row < rows)
            rest = tl.load(place_rest, mask=rest_inside, other=0.0)
            # Full float32: TF32 would leave ten bits of each factor.
            tl.store(place_rest, rest - tl.dot(u, e, input_precision="ieee"), mask=rest_inside)
            start += REST
        tl.debug_barrier()  # the next strip reads what other threads may have written
        first += STRIP


@jit
def _lowest(e, place, first, count, M: tl.constexpr):
    """Which of the columns `first` to `first + M` have the `count` lowest `e^2` of their row.

    `e` is `[STRIP, ROWS]`; the result is undefined in other columns.
    """
    score = e * e
    before = tl.zeros_like(score).to(tl.int32)
    for k in tl.static_range(M):
        other = tl.sum(tl.where(place == first + k, score, -0.0), 0)[None, :]
        before += ((other < score) | ((other == score) & (place > first + k))).to(tl.int32)
    return before < count

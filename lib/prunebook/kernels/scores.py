"""Scores that are products of a weight's magnitude with factors of its row and column, so that
kernels compute them as they read the weight.

`S_ij = |W_ij|` (magnitude), `|W_ij| c_j` (Wanda), `(|W_ij| / p_j + |W_ij| / q_i) c_j` (RIA). Each
operation is rounded to float32 in this order, by the reference and by the kernels: their scores are
equal bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import UserError
from .launch import jit, tl

# as kernels name forms; GIVEN: scores in the weight's place
MAGNITUDE, COLUMNS, SHARES, GIVEN = range(4)


@dataclass(frozen=True)
class Factors:
    """What a score takes besides the weight `[out, in]`, float32 and not negative: `columns` c
    `[in]`, and for shares `column_sums` p `[in]` and `row_sums` q `[out]`, which are not 0."""

    columns: torch.Tensor | None = None
    column_sums: torch.Tensor | None = None
    row_sums: torch.Tensor | None = None

    @property
    def form(self) -> int:
        if self.row_sums is not None:
            return SHARES
        return MAGNITUDE if self.columns is None else COLUMNS

    def check(self, weight: torch.Tensor) -> None:
        """Raise a `UserError` unless all factors fit `weight [out, in]`."""
        if weight.ndim != 2:
            raise UserError(f"weight {list(weight.shape)} cannot be scored; use a matrix [out, in]")
        if (self.column_sums is None) != (self.row_sums is None) or (
            self.form == SHARES and self.columns is None
        ):
            raise UserError("factors are incomplete; shares need columns, column_sums and row_sums")
        rows, width = weight.shape
        for name, wanted in {"columns": width, "column_sums": width, "row_sums": rows}.items():
            given = getattr(self, name)
            if given is not None and (given.shape != (wanted,) or given.dtype != torch.float32):
                text = f"{given.dtype} {list(given.shape)}"
                raise UserError(
                    f"{name} is {text}; a weight {list(weight.shape)} needs torch.float32 "
                    f"[{wanted}]"
                )

    def pointers(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The three as kernels take them; those that the form does not have are `weight`, never
        read."""
        given = (self.columns, self.column_sums, self.row_sums)
        return tuple(weight if one is None else one.contiguous() for one in given)


def factored_score(weight: torch.Tensor, factors: Factors) -> torch.Tensor:
    """The score of each weight, float32 `[out, in]`.

    Raises:
        UserError: factors that do not fit.
    """
    factors.check(weight)
    magnitude = weight.abs().float()
    if factors.form == SHARES:
        magnitude = magnitude / factors.column_sums + magnitude / factors.row_sums[:, None]
    return magnitude if factors.columns is None else magnitude * factors.columns


@jit
def load_score(w, columns, column_sums, row_sums, row, cols, inside, FORM: tl.constexpr):
    """Scores float32 of weights `w` (any dtype) at `row`, a row that exists, and `cols`; undefined
    if not `inside`."""
    score = w.to(tl.float32)
    if FORM != 3:
        score = tl.abs(score)
    if FORM == 2:
        p = tl.load(column_sums + cols, mask=inside, other=1.0)
        q = tl.load(row_sums + row)
        score = tl.div_rn(score, p) + tl.div_rn(score, q)
    if (FORM == 1) | (FORM == 2):
        score = score * tl.load(columns + cols, mask=inside, other=0.0)
    return score


@jit
def order_key(score):
    """Int32 that compare as the float32 scores do; -0.0 and 0.0 are equal, NaN of either sign
    beyond infinity."""
    score = score + 0.0  # -0.0 + 0.0 is 0.0
    bits = score.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(score == score, key, 0x7FFFFFFF)

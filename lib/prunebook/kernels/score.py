"""The one definition of a score: a weight, and what its magnitude is multiplied with.

A score is kept as its factors, so that kernels compute it as they read the weight, and nothing of
the weight's size is written. With `c` the factors of the columns, `p` the sums of the columns and
`q` the sums of the rows it is

    S_ij = |W_ij|                                      magnitude
    S_ij = |W_ij| c_j                                  Wanda
    S_ij = (|W_ij| / p_j + |W_ij| / q_i) c_j           RIA

Each operation is rounded to float32 in this order, by torch and by the kernels: their scores are
equal bit by bit. A higher score means keep.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import UserError
from .forms import COLUMNS, GIVEN, MAGNITUDE, SHARES
from .launch import jit, tl


@dataclass(frozen=True, eq=False)
class Score:
    """The score of every weight of one layer.

    Args:
        weight: `[out, in]` of any floating-point dtype and any strides.
        columns: float32 `[in]`, not negative: the factor c of each column; None for no factor.
        column_sums: float32 `[in]`, not 0: the sum p of each column, for shares.
        row_sums: float32 `[out]`, not 0: the sum q of each row, for shares.
        given: `weight` holds the scores themselves, float32 without NaN.
    """

    weight: torch.Tensor
    columns: torch.Tensor | None = None
    column_sums: torch.Tensor | None = None
    row_sums: torch.Tensor | None = None
    given: bool = False

    @property
    def shape(self) -> torch.Size:
        """`[out, in]`."""
        return self.weight.shape

    @property
    def form(self) -> int:
        """Which of the forms of `forms` the score has."""
        if self.given:
            return GIVEN
        if self.row_sums is not None:
            return SHARES
        if self.columns is not None:
            return COLUMNS
        return MAGNITUDE

    def dense(self) -> torch.Tensor:
        """The scores as a tensor, float32 `[out, in]`.

        Raises:
            UserError: factors that do not fit the weight.
        """
        self.check()
        if self.given:
            return self.weight
        score = self.weight.abs().float()
        if self.form == SHARES:
            # The weight's share of its column plus its share of its row.
            score = score / self.column_sums + score / self.row_sums[:, None]
        if self.columns is not None:
            score = score * self.columns
        return score

    def check(self) -> None:
        """Raise a `UserError` unless all factors fit the weight."""
        if self.weight.ndim != 2:
            shape = list(self.weight.shape)
            raise UserError(f"weight {shape} cannot be scored; use a matrix [out, in]")
        if self.given and self.weight.dtype != torch.float32:
            raise UserError(f"given scores are {self.weight.dtype}; use torch.float32")
        lone_sums = (self.column_sums is None) != (self.row_sums is None)
        if lone_sums or (self.form == SHARES and self.columns is None):
            raise UserError("factors are incomplete; shares need columns, column_sums and row_sums")
        rows, width = self.weight.shape
        for name, size in {"columns": width, "column_sums": width, "row_sums": rows}.items():
            factor = getattr(self, name)
            if factor is None:
                continue
            if factor.shape != (size,) or factor.dtype != torch.float32:
                raise UserError(
                    f"{name} is {factor.dtype} {list(factor.shape)}; a weight {[rows, width]} "
                    f"needs torch.float32 [{size}]"
                )

    def pointers(self) -> tuple[torch.Tensor, ...]:
        """The weight and the three factors as kernels take them.

        A factor that the form does not have is the weight, which is then never read as one.
        """
        pointers = [self.weight]
        for factor in (self.columns, self.column_sums, self.row_sums):
            pointers.append(self.weight if factor is None else factor.contiguous())
        return tuple(pointers)


def comparable(score: Score | torch.Tensor) -> Score | torch.Tensor:
    """The score as it is compared: a checked `Score`, or a tensor in float32 or float64.

    Raises:
        UserError: something else, no matrix, or no floating-point dtype.
    """
    if isinstance(score, Score):
        score.check()
        return score
    if not isinstance(score, torch.Tensor):
        raise UserError(f"scores are a {type(score).__name__}; use a Score or a tensor [out, in]")
    if score.ndim != 2 or not score.is_floating_point():
        raise UserError(
            f"scores are {score.dtype} {list(score.shape)}; use a matrix [out, in] of a float dtype"
        )
    if score.dtype == torch.float64:
        return score
    # float32 holds every number of the narrower dtypes, so that no score changes.
    return score.float()


def refuse_nan(scores: torch.Tensor) -> None:
    """Raise a `UserError` if any score is NaN."""
    # The maximum of numbers among which is a NaN is NaN.
    if scores.numel() and scores.amax().isnan():
        raise UserError("scores hold NaN; weights and calibration activations must be finite")


@jit
def load_score(w, columns, column_sums, row_sums, row, cols, inside, FORM: tl.constexpr):
    """The float32 scores of weights `w`, of any dtype, at `row` and `cols`.

    `row` exists. Where `cols` are not `inside`, scores are undefined.
    """
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
    """Int32 keys that compare as the float32 scores do.

    -0.0 and 0.0 have one key. NaN of either sign lies beyond infinity.
    """
    score = score + 0.0  # -0.0 + 0.0 is 0.0
    bits = score.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(score == score, key, 0x7FFFFFFF)

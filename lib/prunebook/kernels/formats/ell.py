"""Weights with few nonzeros as equally many entries a row: values, and the steps between them.

The format is ELLPACK with the deltas of MACKO (arXiv 2511.13061) in eight bits. An `Ell` with `n`
entries a row holds

* `values [out, n]`, the weights that are not 0 in the order of their inputs, zeros after the last;
* `deltas`, uint8 `[out, n]`: how many inputs lie between an entry and the one before, or the start
  of the row. Where more than 255 do, entries of value 0 with delta 255 come between.

`n` is what the longest row needs, rounded up to a multiple of eight: row-wise pruning leaves all
rows equally long. With a share d of weights other than 0 that is `24 d` bits a weight in 16-bit
dtypes, fewer than a `Bitmap` below d = 1/8. Kernels loop over the entries here, and over every
place of a bitmap. Unpacking gives nonzero weights back bit by bit, NaN included. Zeros are not
stored: -0.0 comes back as 0.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...errors import UserError
from .bitmap import FILL, check_weight

_STEP = 256  # the longest step from one entry to the next


@dataclass(frozen=True)
class Ell:
    """A weight `[out, width]` without its zeros, as the top of the file says."""

    values: torch.Tensor
    deltas: torch.Tensor
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)` of the weight."""
        return self.values.shape[0], self.width

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""
        return self.values.nbytes + self.deltas.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight of the matrix, zeros included."""
        return 8 * self.nbytes / (self.shape[0] * self.width)

    def check(self) -> None:
        """Raise a `UserError` unless shapes and dtypes fit each other."""
        values = self.values
        deltas = self.deltas
        if values.ndim != 2 or values.shape[1] % FILL:
            raise UserError(
                f"values are {list(values.shape)}; use [out, n] with n a multiple of {FILL}"
            )
        if deltas.dtype != torch.uint8 or deltas.shape != values.shape:
            raise UserError(
                f"deltas are {deltas.dtype} {list(deltas.shape)}; values {list(values.shape)} need "
                "torch.uint8 of that shape"
            )


def pack_ell(weight: torch.Tensor) -> Ell:
    """Pack `weight [out, in]`, of any strides, on its device; `unpack_ell` gives it back.

    Raises:
        UserError: no matrix of float32, float16 or bfloat16.
    """
    check_weight(weight)
    rows, width = weight.shape
    row, column = weight.nonzero(as_tuple=True)
    gap = column - F.pad(column, (1, 0), value=-1)[:-1] - 1
    first = row != F.pad(row, (1, 0), value=-1)[:-1]
    gap = torch.where(first, column, gap)
    # Entries up to each weight, those of the rows above included.
    ends = (gap // _STEP + 1).cumsum(0)
    # Weights, then entries, above each row.
    before = torch.searchsorted(row, torch.arange(rows + 1, device=row.device))
    above = F.pad(ends, (1, 0))[before]
    lengths = above.diff()
    # The longest row decides how many entries all have; there may be no rows.
    n = 0
    if rows:
        n = int(lengths.max())
    n += -n % FILL
    values = weight.new_zeros(rows, n)
    inside = torch.arange(n, device=row.device) < lengths[:, None]
    deltas = torch.where(inside, _STEP - 1, 0).to(torch.uint8)
    place = ends - 1 - above[row]
    values[row, place] = weight[row, column]
    deltas[row, place] = (gap % _STEP).to(torch.uint8)
    return Ell(values, deltas, width)


def unpack_ell(packed: Ell) -> torch.Tensor:
    """The weight `[out, in]`, in torch on any device.

    Raises:
        UserError: parts that do not fit each other.
    """
    packed.check()
    rows, width = packed.shape
    columns = (packed.deltas.long() + 1).cumsum(1) - 1
    # One more column than inputs: it takes the entries that fill rows up.
    weight = packed.values.new_zeros(rows, width + 1)
    return weight.scatter_(1, columns.clamp_(max=width), packed.values)[:, :width].contiguous()

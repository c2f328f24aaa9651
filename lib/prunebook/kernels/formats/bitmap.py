"""Weights with zeros anywhere as a bitmap: a bit for each place, and the nonzero weights in order.

SpInfer (DOI 10.1145/3689031.3717481) uses bitmaps for inference on tensor cores. A `Bitmap` holds

* `bits`, uint8 `[out, ceil(in / 8)]`, as `selection.pack_bits` has them: 1 where the weight is not
  0;
* `values [n]`, the weights that are not 0, row by row in the order of their inputs. Zeros fill each
  row up to a multiple of eight, so that it starts at 16 bytes in any dtype;
* `starts`, int32 `[out, ceil(in / 512)]`: where in `values` each 512 inputs of a row begin.

With a share d of weights other than 0 that is `1 + 1/16 + 16 d` bits a weight in 16-bit dtypes,
beside the filling. Unpacking gives nonzero weights back bit by bit, NaN included. Zeros are not
stored: -0.0 comes back as 0.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import UserError
from ..launch import jit, on_device, runs_natively, tl
from ..topk.rule import PER_BYTE, pack_bits, unpack_bits

FILL = 8  # rows of values are filled up to a multiple of it
SEGMENT = 512  # inputs of a segment: a start costs 1/16 bit for each, and programs may begin there
MOST_VALUES = 2**31 - 1  # starts can address so many values
_ROWS = 4  # one program unpacks so many rows


@dataclass(frozen=True)
class Bitmap:
    """A weight `[out, width]` without its zeros, as the top of the file says."""

    values: torch.Tensor
    bits: torch.Tensor
    starts: torch.Tensor
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)` of the weight."""
        return self.bits.shape[0], self.width

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""
        return self.values.nbytes + self.bits.nbytes + self.starts.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight of the matrix, zeros included."""
        return 8 * self.nbytes / (self.shape[0] * self.width)

    def check(self) -> None:
        """Raise a `UserError` unless shapes and dtypes fit each other."""
        rows, width = self.shape
        parts = {
            "bits": (self.bits, torch.uint8, (rows, -(-width // PER_BYTE))),
            "starts": (self.starts, torch.int32, (rows, -(-width // SEGMENT))),
        }
        for name, (part, dtype, shape) in parts.items():
            if part.dtype != dtype or part.shape != shape:
                raise UserError(
                    f"{name} are {part.dtype} {list(part.shape)}; a weight [{rows}, {width}] needs "
                    f"{dtype} {list(shape)}"
                )
        if self.values.ndim != 1:
            raise UserError(f"values are {list(self.values.shape)}; a bitmap has them in one row")


def check_weight(weight: torch.Tensor) -> None:
    """Raise a `UserError` unless the weight is a matrix of a dtype that kernels compute with."""
    if weight.ndim != 2 or weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise UserError(
            f"weight is {weight.dtype} {list(weight.shape)}; use a matrix [out, in] of float32, "
            "float16 or bfloat16"
        )


def pack_bitmap(weight: torch.Tensor) -> Bitmap:
    """Pack `weight [out, in]`, of any strides, on its device; `unpack_bitmap` gives it back.

    Raises:
        UserError: no matrix of float32, float16 or bfloat16, or one of more than 2^31 - 1 values.
    """
    check_weight(weight)
    rows, width = weight.shape
    keep = weight != 0
    segments = -(-width // SEGMENT)
    counts = F.pad(keep, (0, -width % SEGMENT)).reshape(rows, segments, SEGMENT).sum(2)
    lengths = counts.sum(1)
    filled = lengths + -lengths % FILL
    if int(filled.sum()) > MOST_VALUES:
        raise UserError(
            f"weight {list(weight.shape)} has {int(filled.sum())} values; a bitmap holds "
            f"{MOST_VALUES}"
        )
    starts = (filled.cumsum(0) - filled)[:, None] + counts.cumsum(1) - counts
    values = F.pad(weight, (0, FILL - 1))[_with_filling(keep, lengths)]
    return Bitmap(values, pack_bits(keep), starts.int(), width)


def unpack_bitmap(packed: Bitmap) -> torch.Tensor:
    """The weight `[out, in]`.

    Raises:
        UserError: parts that do not fit each other.
    """
    packed.check()
    if runs_natively(packed.values, packed.bits, packed.starts):
        return launch_unpack_bitmap(packed)
    return unpack_bitmap_reference(packed)


def unpack_bitmap_reference(packed: Bitmap) -> torch.Tensor:
    """`unpack_bitmap` in torch, for parts of fitting shapes."""
    keep = unpack_bits(packed.bits, packed.width)
    mask = _with_filling(keep, keep.sum(1))
    # torch takes four times as long as numpy here.
    places = torch.from_numpy(np.flatnonzero(mask.cpu().numpy())).to(mask.device)
    if len(places) != len(packed.values):
        raise UserError(
            f"bits ask for {len(places)} values with the filling; there are {len(packed.values)}"
        )
    flat = packed.values.new_zeros(mask.numel()).scatter_(0, places, packed.values)
    return flat.view(mask.shape)[:, : packed.width].contiguous()


def _with_filling(keep: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mask `keep [out, in]` with more columns at its end, True where values fill a row up."""
    columns = torch.arange(FILL - 1, device=keep.device)
    return torch.cat([keep, columns < (-lengths % FILL)[:, None]], 1)


@on_device
def launch_unpack_bitmap(packed: Bitmap) -> torch.Tensor:
    """`unpack_bitmap` by the kernel, for parts that fit."""
    rows, width = packed.shape
    weight = torch.empty(rows, width, dtype=packed.values.dtype, device=packed.values.device)
    if weight.numel():
        segments = packed.starts.shape[1]
        _unpack_kernel[(-(-rows // _ROWS), segments)](
            packed.values.contiguous(),
            packed.bits.contiguous(),
            packed.starts.contiguous(),
            weight,
            rows,
            width,
            packed.bits.shape[1],
            segments,
            ROWS=_ROWS,
            PAIRS=SEGMENT // 16,
            num_warps=1,
        )
    return weight


@jit
def count_ones(byte):
    """How many bits of each byte, an int32, are 1.

    One product spreads the bits of a half over four bytes, another one adds them.
    """
    low = (byte & 15) * 0x00204081 & 0x01010101
    high = (byte >> 4) * 0x00204081 & 0x01010101
    return (low + high) * 0x01010101 >> 24


@jit
def load_weights(values, row_bits, pair, row_bytes, start, real):
    """The weights at the 16 places of each pair of bytes, and how many of them are stored.

    The weights are 16 tensors of the shape of `pair`. `pair` counts pairs of bytes along a row, on
    its first axis, from one whose values begin at `start`. Only stored values are loaded, and a
    thread has whole pairs: neighbouring threads read from the same lines of the cache.
    """
    low = tl.load(row_bits + 2 * pair, mask=real & (2 * pair < row_bytes), other=0).to(tl.int32)
    high = tl.load(row_bits + 2 * pair + 1, mask=real & (2 * pair + 1 < row_bytes), other=0).to(
        tl.int32
    )
    ones = count_ones(low) + count_ones(high)
    address = values + (start + tl.cumsum(ones, 0) - ones)
    word = low | high << 8
    weights = ()
    for place in tl.static_range(16):
        bit = word >> place & 1
        weights += (tl.load(address, mask=bit == 1, other=0.0),)
        address += bit
    return weights, ones


@jit
def joined(w):
    """The 16 tensors of `load_weights` as one, `[..., 2, 2, 2, 2]`, with the places in order.

    Values stay within a thread.
    """
    return tl.join(
        tl.join(
            tl.join(tl.join(w[0], w[8]), tl.join(w[4], w[12])),
            tl.join(tl.join(w[2], w[10]), tl.join(w[6], w[14])),
        ),
        tl.join(
            tl.join(tl.join(w[1], w[9]), tl.join(w[5], w[13])),
            tl.join(tl.join(w[3], w[11]), tl.join(w[7], w[15])),
        ),
    )


@jit
def _unpack_kernel(
    values,
    bits,
    starts,
    weight,
    rows,
    width,
    row_bytes,
    segments,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """One program of one warp unpacks a segment of `ROWS` rows."""
    segment = tl.program_id(1)
    pair = segment * PAIRS + tl.arange(0, PAIRS)
    column = segment * PAIRS * 16 + tl.arange(0, 16 * PAIRS)
    for r in tl.static_range(ROWS):
        row = (tl.program_id(0) * ROWS + r).to(tl.int64)
        start = tl.load(starts + row * segments + segment, mask=row < rows, other=0)
        weights = load_weights(values, bits + row * row_bytes, pair, row_bytes, start, row < rows)[
            0
        ]
        dense = tl.reshape(joined(weights), (16 * PAIRS,))
        tl.store(weight + row * width + column, dense, mask=(row < rows) & (column < width))

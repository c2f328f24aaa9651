"""`y = x W^T + b` from a `Bitmap` or an `Ell`, for the few tokens of decoding.

At such sizes a product costs what its weight costs to read, and zeros are not read: weights are
loaded as sparse ones and computed with as dense ones (Flash-LLM, arXiv 2309.10285). Up to four
tokens, threads sum in float32, over the places of a bitmap or the entries of an `Ell`. With more
tokens, tiles of a bitmap are expanded in registers and go through the tensor cores, padded to 16
tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .bitmap import SEGMENT, Bitmap, joined, load_weights, unpack_bitmap
from .ell import Ell, unpack_ell
from .launch import jit, multiplies_wide, next_power_of_2, on_device, runs_natively, split_steps, tl
from .matmul_2_4 import add_parts, check_operands
from .selection import PER_BYTE

# Each way is taken up to so many tokens; with more, a dense product on the unpacked weight. The
# numbers come from counting bytes and instructions: no run of this file on a GPU is recorded yet,
# and no way is known to be faster than a dense product there. Replace them by measured ones, 0
# where a way does not pay.
FMA_TOKENS = 4  # threads alone, no tensor cores
BITMAP_TOKENS = 64
ELL_TOKENS = 4

_WARPS = 1056  # K is split for about so many warps, eight for each multiprocessor of an H100
_FMA_ROWS = 2  # a program of one warp takes so many rows of W
_ENTRIES = 128  # entries of a row of an `Ell` at a time: four for each thread
_OUT_TILE = 64  # a tensor core program takes so many rows of W
_PAIR_TILE = {16: 8, 32: 2}  # pairs of bytes, 16 inputs each, in a tile, by the bits of the dtype


def linear_unstructured(
    x: torch.Tensor, packed: Bitmap | Ell, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`x W^T + bias`; on a CPU it is `F.linear` with the unpacked weight.

    Args:
        x: `[..., in]`, of the dtype of the values; under autocast of any dtype. Where x is infinite
            or NaN, an `Ell` skips the zeros of the weight.
        packed: W `[out, in]`. Gradients go to x alone.
        bias: `[out]`, of the dtype of the values.

    Returns:
        `[..., out]` in the dtype of x, summed in float32 by the kernels.

    Raises:
        UserError: widths or dtypes that do not fit, or parts of `packed` that do not fit each
            other.
    """
    device = x.device.type
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    packed.check()
    check_operands(x, packed.shape, packed.values.dtype, bias, casts)
    tokens = x.numel() // max(x.shape[-1], 1)
    most = BITMAP_TOKENS if isinstance(packed, Bitmap) else ELL_TOKENS
    fits = 0 < tokens <= most and not casts and not x.requires_grad
    if not fits or not runs_natively(x, packed.values, bias, tiles=True):
        return linear_unstructured_reference(x, packed, bias)
    return launch_linear_unstructured(x, packed, bias)


def linear_unstructured_reference(
    x: torch.Tensor, packed: Bitmap | Ell, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`linear_unstructured` in torch; it defines the kernels, except their order of sums."""
    unpack = unpack_bitmap if isinstance(packed, Bitmap) else unpack_ell
    return F.linear(x, unpack(packed), bias)


@on_device
def launch_linear_unstructured(
    x: torch.Tensor, packed: Bitmap | Ell, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`linear_unstructured` by the kernels, for checked arguments.

    A bitmap takes any number of tokens from 1, an `Ell` takes 1 to `FMA_TOKENS`.
    """
    rows, width = packed.shape
    flat = x.reshape(-1, width).contiguous()
    tokens = len(flat)
    y = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if isinstance(packed, Bitmap):
        _launch_bitmap(flat, packed, bias, y)
    else:
        _ell_kernel[(-(-rows // _FMA_ROWS),)](
            flat,
            packed.values.contiguous(),
            packed.deltas.contiguous(),
            y if bias is None else bias,
            y,
            rows,
            width,
            packed.values.shape[1] // PER_BYTE,
            TOKENS=tokens,
            BIAS=bias is not None,
            ROWS=_FMA_ROWS,
            BLOCK=_ENTRIES,
            num_warps=1,
        )
    return y.view(*x.shape[:-1], rows)


def _launch_bitmap(
    x: torch.Tensor, packed: Bitmap, bias: torch.Tensor | None, y: torch.Tensor
) -> None:
    """Write y `[tokens, out]` from x `[tokens, in]`; K is split where rows give few programs."""
    rows, width = packed.shape
    tokens = len(x)
    segments = packed.starts.shape[1]
    tile, warps = (_FMA_ROWS, 1) if tokens <= FMA_TOKENS else (_OUT_TILE, 4)
    tiles = -(-rows // tile)
    splits, steps = split_steps(segments, _WARPS // (tiles * warps))
    parts = y
    if splits > 1:
        parts = torch.empty(splits, tokens, rows, dtype=torch.float32, device=x.device)
    stored = [part.contiguous() for part in (packed.values, packed.bits, packed.starts)]
    sizes = (rows, tokens, width, packed.bits.shape[1], segments)
    arguments = (x, *stored, y if bias is None else bias, parts, *sizes)
    last = bias is not None and splits == 1
    if tokens <= FMA_TOKENS:
        _bitmap_fma_kernel[(tiles, splits)](
            *arguments,
            STEPS=steps,
            BIAS=last,
            ROWS=_FMA_ROWS,
            PAIRS=SEGMENT // 16,
            TOKENS=tokens,
            num_warps=1,
        )
    else:
        pairs = _PAIR_TILE[8 * x.element_size()]
        _bitmap_tile_kernel[(tiles, splits)](
            *arguments,
            STEPS=steps,
            BIAS=last,
            OUT=_OUT_TILE,
            PAIRS=pairs,
            TILES=SEGMENT // 16 // pairs,
            TOKENS=max(next_power_of_2(tokens), 16),
            WIDE=multiplies_wide(x.dtype),
            num_warps=4,
        )
    if splits > 1:
        add_parts(parts, bias, y)


@jit
def _eight_inputs(x, first, width, LANES: tl.constexpr):
    """The eight inputs from each of `first [LANES]` on, as float32 `[LANES]`, loaded at once."""
    at = first[:, None] + tl.arange(0, 8)[None, :]
    eight = tl.load(x + at, mask=at < width, other=0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(eight, (LANES, 2, 2, 2)))  # places 0 2 4 6, 1 3 5 7
    x04, x26 = tl.split(even)
    x15, x37 = tl.split(odd)
    x0, x4 = tl.split(x04)
    x1, x5 = tl.split(x15)
    x2, x6 = tl.split(x26)
    x3, x7 = tl.split(x37)
    return x0, x1, x2, x3, x4, x5, x6, x7


@jit
def _bitmap_fma_kernel(
    x,
    values,
    bits,
    starts,
    bias,
    out,
    rows,
    tokens,
    width,
    row_bytes,
    segments,
    STEPS: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """One program of one warp for `ROWS` outputs of all tokens and one part of K.

    A part is `STEPS` segments; part p is written to `out[p]`. A thread has 16 places of a segment,
    and one scan tells where its values begin.
    """
    first = tl.program_id(0).to(tl.int64) * ROWS
    part = tl.program_id(1)
    sums = ()
    for _ in tl.static_range(ROWS * TOKENS):
        sums += (tl.zeros((PAIRS,), tl.float32),)
    for step in range(STEPS):
        segment = part * STEPS + step
        pair = segment * PAIRS + tl.arange(0, PAIRS)
        inputs = ()
        for token in tl.static_range(TOKENS):
            row_x = x + token * width
            inputs += (_eight_inputs(row_x, 16 * pair, width, PAIRS),)
            inputs += (_eight_inputs(row_x, 16 * pair + 8, width, PAIRS),)
        new = ()
        for r in tl.static_range(ROWS):
            real = (first + r < rows) & (segment < segments)
            start = tl.load(starts + (first + r) * segments + segment, mask=real, other=0)
            weights = load_weights(
                values, bits + (first + r) * row_bytes, pair, row_bytes, start, real
            )[0]
            for token in tl.static_range(TOKENS):
                total = sums[r * TOKENS + token]
                for place in tl.static_range(16):
                    total += (
                        weights[place].to(tl.float32) * inputs[2 * token + place // 8][place % 8]
                    )
                new += (total,)
        sums = new
    for r in tl.static_range(ROWS):
        real = first + r < rows
        for token in tl.static_range(TOKENS):
            total = tl.sum(sums[r * TOKENS + token], 0)
            if BIAS:
                total += tl.load(bias + first + r, mask=real, other=0.0).to(tl.float32)
            target = out + (part.to(tl.int64) * TOKENS + token) * rows + first + r
            tl.store(target, total.to(out.dtype.element_ty), mask=real)


@jit
def _bitmap_tile_kernel(
    x,
    values,
    bits,
    starts,
    bias,
    out,
    rows,
    tokens,
    width,
    row_bytes,
    segments,
    STEPS: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    PAIRS: tl.constexpr,
    TILES: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program for `OUT` outputs of all tokens and one part of K.

    A part is `STEPS` segments of `TILES` tiles; part p is written to `out[p]`. A tile of W is
    expanded to dense order, and is the operand on the 64-row side.
    """
    row = tl.program_id(0) * OUT + tl.arange(0, OUT)
    part = tl.program_id(1)
    token = tl.arange(0, TOKENS)
    real = row < rows
    # Places are the first axis: where nothing tells Triton how addresses run, it puts neighbours
    # along it into neighbouring threads.
    row_bits = bits + row.to(tl.int64)[None, :] * row_bytes
    lanes = tl.arange(0, PAIRS)[:, None]
    sums = tl.zeros((OUT, TOKENS), tl.float32)
    for step in range(STEPS):
        segment = part * STEPS + step
        start = tl.load(
            starts + row * segments + segment, mask=real & (segment < segments), other=0
        )
        for i_tile in range(TILES):
            tile = segment * TILES + i_tile
            column = tile * (16 * PAIRS) + tl.arange(0, 16 * PAIRS)
            at = token[:, None] * width + column[None, :]
            inputs = tl.load(
                x + at, mask=(token < tokens)[:, None] & (column < width)[None, :], other=0.0
            )
            pair = tile * PAIRS + lanes
            weights, ones = load_weights(
                values, row_bits, pair, row_bytes, start[None, :], real[None, :]
            )
            dense = tl.reshape(tl.permute(joined(weights), (1, 0, 2, 3, 4, 5)), (OUT, 16 * PAIRS))
            if WIDE:
                dense = dense.to(tl.float32)
                inputs = inputs.to(tl.float32)
            sums = tl.dot(dense, tl.trans(inputs), sums, input_precision="ieee")
            start += tl.sum(ones, 0)
    if BIAS:
        sums += tl.load(bias + row, mask=real, other=0.0).to(tl.float32)[:, None]
    target = out + part.to(tl.int64) * tokens * rows + token[None, :] * rows + row[:, None]
    tl.store(target, sums.to(out.dtype.element_ty), mask=real[:, None] & (token < tokens)[None, :])


@jit
def _ell_kernel(
    x,
    values,
    deltas,
    bias,
    y,
    rows,
    width,
    eights,
    TOKENS: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program of one warp for `ROWS` outputs of all tokens.

    It loops over entries, of which a row has `eights` times eight, and gathers their inputs. One
    scan over `BLOCK` steps tells where they are.
    """
    first = tl.program_id(0).to(tl.int64) * ROWS
    entries = eights * 8  # as a product, which tells Triton that vectors of eight are aligned
    passed = ()
    sums = ()
    for _ in tl.static_range(ROWS):
        passed += (tl.program_id(0) * 0,)  # inputs, an int32
    for _ in tl.static_range(ROWS * TOKENS):
        sums += (tl.zeros((BLOCK,), tl.float32),)
    start = 0
    while start < entries:
        at = start + tl.arange(0, BLOCK)
        now = ()
        new = ()
        for r in tl.static_range(ROWS):
            real = (first + r < rows) & (at < entries)
            step = tl.load(deltas + (first + r) * entries + at, mask=real, other=0).to(tl.int32) + 1
            value = tl.load(values + (first + r) * entries + at, mask=real, other=0.0).to(
                tl.float32
            )
            column = passed[r] + tl.cumsum(step, 0) - 1
            now += (passed[r] + tl.sum(step, 0),)
            for token in tl.static_range(TOKENS):
                inputs = tl.load(
                    x + token * width + column, mask=real & (column < width), other=0.0
                )
                new += (sums[r * TOKENS + token] + value * inputs.to(tl.float32),)
        passed = now
        sums = new
        start += BLOCK
    for r in tl.static_range(ROWS):
        for token in tl.static_range(TOKENS):
            total = tl.sum(sums[r * TOKENS + token], 0)
            if BIAS:
                total += tl.load(bias + first + r, mask=first + r < rows, other=0.0).to(tl.float32)
            tl.store(
                y + token * rows + first + r, total.to(y.dtype.element_ty), mask=first + r < rows
            )

"""`y = x W^T + b` from a `Bitmap` or an `Ell`, for the few tokens of decoding.

At such sizes a product costs what its weight costs to read, and zeros are not read: weights are
loaded as sparse ones and computed with as dense ones (Flash-LLM, arXiv 2309.10285). Up to four
tokens, threads sum in float32, over the places of a bitmap or the entries of an `Ell`. With more
tokens, tiles of a bitmap are expanded in registers and go through the tensor cores, padded to 16
tokens.
"""

import torch
import torch.nn.functional as F

from ..formats.bitmap import SEGMENT, Bitmap, unpack_bitmap
from ..formats.ell import Ell, unpack_ell
from ..launch import multiplies_wide, next_power_of_2, on_device, runs_natively, split_steps
from ..topk.rule import PER_BYTE
from .two_four import add_parts, check_operands
from .unstructured_kernels import bitmap_fma_kernel, bitmap_tile_kernel, ell_kernel

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
        ell_kernel[(-(-rows // _FMA_ROWS),)](
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
        bitmap_fma_kernel[(tiles, splits)](
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
        bitmap_tile_kernel[(tiles, splits)](
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

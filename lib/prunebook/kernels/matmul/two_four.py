"""`y = x W^T + b` from a packed 2:4 weight (see `formats.n_of_m`), for the few tokens of decoding.

At such sizes a product costs what its weight costs to read, and that is 9 bits a weight instead of
16. Both kernels read values and codes once. Up to four tokens, threads pick the two inputs that
each group meets and sum in float32. With more tokens, tiles are expanded in registers and go
through the tensor cores, padded to 16 tokens: the operations of a dense product are hidden behind
the reading.
"""

import torch
import torch.nn.functional as F

from ...errors import UserError
from ..formats.n_of_m import Packed, as_pairs, check_codes_2_4, unpack_n_of_m
from ..launch import (
    PROGRAMS,
    multiplies_wide,
    next_power_of_2,
    on_device,
    or_unread,
    runs_natively,
    split_steps,
)
from .two_four_kernels import add_kernel, fma_kernel, tile_kernel

# Each way is taken up to so many tokens. The numbers come from what others published about cuBLAS
# and cuSPARSELt on H100, and from counting bytes: no run of this file on a GPU is recorded yet.
# Replace them by measured ones.
FMA_TOKENS = 4  # threads alone, no tensor cores

# The packed kernels. Reading the weight hides the products up to about 150 tokens.
KERNEL_TOKENS = 64

# A dense product on the unpacked weight. With more, converting for sparse tensor cores pays.
DENSE_TOKENS = 4095

_OUT_TILE = 64  # a tensor core program takes so many rows of W

_GROUP_TILE = {16: 32, 32: 8}  # groups of four inputs in a tile, by the bits of the dtype


def linear_2_4(x: torch.Tensor, packed: Packed, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x W^T + bias`; on a CPU it is `F.linear` with the unpacked weight.

    Args:
        x: `[..., in]`, of the dtype of the values; under autocast of any dtype.
        packed: W `[out, in]`, 2:4. Gradients go to x alone.
        bias: `[out]`, of the dtype of the values.

    Returns:
        `[..., out]` in the dtype of x, summed in float32 by the kernels.

    Raises:
        UserError: another pattern than 2:4, or widths or dtypes that do not fit.
    """
    device = x.device.type
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    _check(x, packed, bias, casts)
    tensors = [x, packed.values, packed.codes, bias]
    tokens = x.numel() // max(x.shape[-1], 1)
    if casts or x.requires_grad or not tokens or not runs_natively(*tensors, tiles=True):
        return linear_2_4_reference(x, packed, bias)
    if tokens <= KERNEL_TOKENS:
        return launch_linear_2_4(x, packed, bias)
    return _linear_of_many(x, packed, bias)


def linear_2_4_reference(
    x: torch.Tensor, packed: Packed, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`linear_2_4` in torch, for checked arguments; kernels may sum in another order."""
    return F.linear(x, unpack_n_of_m(packed), bias)


def _check(x: torch.Tensor, packed: Packed, bias: torch.Tensor | None, casts: bool) -> None:
    if (packed.n, packed.m) != (2, 4):
        raise UserError(f"packed is {packed.n}:{packed.m}; linear_2_4 multiplies 2:4")
    check_operands(x, packed.shape, packed.values.dtype, bias, casts)
    check_codes_2_4(packed)


def check_operands(
    x: torch.Tensor,
    shape: tuple[int, int],
    dtype: torch.dtype,
    bias: torch.Tensor | None,
    casts: bool,
) -> None:
    """Raise a `UserError` unless x `[..., in]` and the bias `[out]` fit a packed weight.

    `shape` and `dtype` are those of the weight; where autocast `casts`, x has any dtype.
    """
    rows, width = shape
    weight = f"a packed weight [{rows}, {width}] needs {dtype}"
    if x.ndim == 0 or x.shape[-1] != width or not (casts or x.dtype == dtype):
        raise UserError(f"x is {x.dtype} {list(x.shape)}; {weight} [..., {width}]")
    if bias is not None and (bias.shape != (rows,) or bias.dtype != dtype):
        raise UserError(f"bias is {bias.dtype} {list(bias.shape)}; {weight} [{rows}]")


def _linear_of_many(x: torch.Tensor, packed: Packed, bias: torch.Tensor | None) -> torch.Tensor:
    """A product bound by arithmetic, whose weight is unpacked or converted for this call alone."""
    weight = unpack_n_of_m(packed)
    rows, width = weight.shape
    # torch's sparse tensors take these sizes; the weight is 2:4 because its values were packed.
    fits = weight.element_size() == 2 and rows % 32 == 0 and width % 64 == 0
    if x.numel() // width > DENSE_TOKENS and fits and torch.backends.cusparselt.is_available():
        weight = torch.sparse.to_sparse_semi_structured(weight)
    return F.linear(x, weight, bias)


@on_device
def launch_linear_2_4(
    x: torch.Tensor, packed: Packed, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`linear_2_4` by the kernels, for checked arguments and 1 to 128 tokens."""
    rows, width = packed.shape
    flat = x.reshape(-1, width).contiguous()
    tokens = len(flat)
    pairs = as_pairs(packed)
    codes = packed.codes.contiguous()
    bits = 8 * x.element_size()
    y = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if tokens <= FMA_TOKENS:
        out_tile = 4 if tokens <= 2 else 2
        warps = 4 if codes.shape[1] > 64 else 2
        fma_kernel[(-(-rows // out_tile),)](
            flat,
            pairs,
            codes,
            or_unread(bias, y),
            y,
            rows,
            width,
            WORDS=codes.shape[1],
            TOKENS=tokens,
            BIAS=bias is not None,
            BITS=bits,
            ROWS=out_tile,
            THREADS=32 * warps,
            num_warps=warps,
        )
        return y.view(*x.shape[:-1], rows)
    tiles = -(-rows // _OUT_TILE)
    steps = -(-(width // 4) // _GROUP_TILE[bits])
    splits, steps_each = split_steps(steps, PROGRAMS // tiles, least=2)
    parts = y
    if splits > 1:
        parts = torch.empty(splits, tokens, rows, dtype=torch.float32, device=x.device)
    block = max(next_power_of_2(tokens), 16)
    tile_kernel[(tiles, splits)](
        flat,
        pairs,
        codes,
        or_unread(bias, y),
        parts,
        rows,
        tokens,
        width,
        codes.shape[1],
        STEPS=steps_each,
        BIAS=bias is not None and splits == 1,
        BITS=bits,
        OUT=_OUT_TILE,
        GROUPS=_GROUP_TILE[bits],
        TOKENS=block,
        WIDE=multiplies_wide(x.dtype),
        num_warps=4,
        num_stages=4,
    )
    if splits > 1:
        add_parts(parts, bias, y)
    return y.view(*x.shape[:-1], rows)


def add_parts(parts: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor) -> None:
    """Write to y `[tokens, out]` the sum of float32 parts `[splits, tokens, out]` and the bias."""
    size = y.numel()
    splits = len(parts)
    add_kernel[(-(-size // 1024),)](
        parts,
        or_unread(bias, y),
        y,
        size,
        y.shape[1],
        SPLITS=splits,
        BIAS=bias is not None,
        BLOCK=1024,
    )

"""Ternary weights in two bits each, and their product with 8-bit activations.

Layout: code t in {-1, 0, 1} is stored as t + 1. Byte j of a row holds the inputs 4j to 4j + 3, the first of them in the
lowest two bits; what fills up a last byte is 0. (bitnet.cpp's formats hold the same codes in orders of their own.)
"""

import contextlib

import torch
import torch.nn.functional as F

from ..errors import UserError

PER_BYTE = 4
_LARGEST = 128  # of an int8 activation, so a sum over K inputs is a whole number of at most 128 K
_EXACT = 2**24  # up to which float32 holds every whole number


def pack_ternary(codes: torch.Tensor) -> torch.Tensor:
    """`codes [out, in]` of -1, 0 and 1, of any dtype, in two bits each: uint8 `[out, ceil(in / 4)]`.

    Raises:
        UserError: another shape, or another value.
    """
    if codes.ndim != 2:
        raise UserError(f"codes {list(codes.shape)} cannot be packed; use a matrix [out, in]")
    if not ((codes == 0) | (codes.abs() == 1)).all():
        raise UserError("codes hold values other than -1, 0 and 1; quantise them first, as with absmean_ternary")
    digits = F.pad((codes + 1).to(torch.uint8), (0, -codes.shape[1] % PER_BYTE), value=1)
    first, second, third, fourth = digits.unflatten(1, (-1, PER_BYTE)).unbind(2)
    return first | second << 2 | third << 4 | fourth << 6


def unpack_ternary(packed: torch.Tensor, columns: int) -> torch.Tensor:
    """The codes int8 `[out, columns]` of `packed`, uint8 `[out, ceil(columns / 4)]`.

    Raises:
        UserError: `packed` is not of that shape and dtype.
    """
    width = -(-columns // PER_BYTE)
    if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        given = f"{packed.dtype} {list(packed.shape)}"
        raise UserError(f"packed is {given}; {columns} columns need torch.uint8 [out, {width}]")
    digits = torch.stack([packed >> 2 * place & 3 for place in range(PER_BYTE)], dim=2)
    return digits.flatten(1)[:, :columns].to(torch.int8) - 1


def ternary_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    x_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """`y = (x W^T) scale / x_scale + bias` with whole numbers x and W: the sums are exact, whatever their order.

    The product is of floats that hold whole numbers, which is exact up to 131,072 inputs in float32 and beyond them in
    float64; integer products are slow on CPUs and missing on GPUs.

    Args:
        x: int8 `[..., in]`. packed: W, uint8 `[out, ceil(in / 4)]`, as from `pack_ternary`.
        scale: of the weights, one number: a code counts so much. x_scale: `[..., 1]`, codes per unit of activation.
        bias: `[out]`.

    Returns:
        `[..., out]` in float32.

    Raises:
        UserError: x is not int8, or `packed` does not fit its width.
    """
    if x.dtype != torch.int8:
        raise UserError(f"x is {x.dtype}; ternary_linear multiplies torch.int8, as from absmax_int8")
    codes = unpack_ternary(packed, x.shape[-1])
    dtype = torch.float32 if _LARGEST * x.shape[-1] <= _EXACT else torch.float64
    kind = x.device.type
    rounds = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if rounds else contextlib.nullcontext():
        sums = F.linear(x.to(dtype), codes.to(dtype)).float()
    y = sums * (scale / x_scale)
    return y if bias is None else y + bias

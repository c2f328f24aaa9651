"""Ternary weights in two bits each, and their product with 8-bit or floating-point activations.

Layout: code t in {-1, 0, 1} is stored as t + 1. Byte j of a row holds the inputs 4j to 4j + 3, the
first of them in the lowest two bits; code 0 fills a last byte up. (bitnet.cpp's formats hold the
same codes in orders of their own.)
"""

import contextlib

import torch
import torch.nn.functional as F

from ...errors import UserError
from ..launch import (
    PROGRAMS,
    multiplies_wide,
    next_power_of_2,
    on_device,
    or_unread,
    runs_natively,
    split_steps,
)
from .ternary_kernels import add_kernel, ternary_kernel

PER_BYTE = 4

# The kernel is taken up to so many tokens. By counting, reading two bits a weight costs more than
# multiplying up to 33 tokens; the rest is a margin. No run on a GPU is recorded yet; replace it by
# a measured number.
KERNEL_TOKENS = 64

_FLOAT32_TOKENS = 16  # the same for float32 activations, more of which spill registers

_OUT = 64  # a program takes so many rows of the weight

_BYTES = 64  # a program takes so many bytes of a row at a time

_LARGEST = 128  # largest int8 activation: a sum over K inputs is a whole number of at most 128 K

_EXACT = 2**24  # float32 holds every whole number up to this one


def pack_ternary(codes: torch.Tensor) -> torch.Tensor:
    """Pack codes `[out, in]` of -1, 0 and 1, of any dtype, into uint8 `[out, ceil(in / 4)]`.

    Raises:
        UserError: another shape, or another value.
    """
    if codes.ndim != 2:
        raise UserError(f"codes {list(codes.shape)} cannot be packed; use a matrix [out, in]")
    if not ((codes == 0) | (codes.abs() == 1)).all():
        raise UserError(
            "codes hold values other than -1, 0 and 1; quantise them first, as with absmean_ternary"
        )
    digits = F.pad((codes + 1).to(torch.uint8), (0, -codes.shape[1] % PER_BYTE), value=1)
    first, second, third, fourth = digits.unflatten(1, (-1, PER_BYTE)).unbind(2)
    return first | second << 2 | third << 4 | fourth << 6


def unpack_ternary(packed: torch.Tensor, columns: int) -> torch.Tensor:
    """The codes int8 `[out, columns]` of `packed`, uint8 `[out, ceil(columns / 4)]`.

    Raises:
        UserError: `packed` is not of that shape and dtype.
    """
    _check_packed(packed, columns)
    digits = torch.stack([packed >> 2 * place & 3 for place in range(PER_BYTE)], dim=2)
    return digits.flatten(1)[:, :columns].to(torch.int8) - 1


def ternary_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    scale: torch.Tensor,
    x_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """`y = (x W^T) scale / x_scale + bias`.

    With whole numbers x the sums are exact, whatever their order. Weights that read the same input
    multiply as one: stack their `packed`, and give `scale` an entry for each row.

    Args:
        x: int8 `[..., in]` with an `x_scale`, or of a float dtype without one.
        packed: W, uint8 `[out, ceil(in / 4)]`, as from `pack_ternary`.
        scale: float32, the value of a code 1: one number or `[out]`.
        x_scale: float32 `[..., 1]`, codes per unit of activation.
        bias: `[out]`.

    Returns:
        `[..., out]` in float32. Gradients go to x alone, and to it only where it is of a float
        dtype.

    Raises:
        UserError: x of another dtype, or arguments that do not fit each other.
    """
    _check(x, packed, scale, x_scale, bias)
    most = {torch.float32: _FLOAT32_TOKENS, torch.float64: 0}.get(x.dtype, KERNEL_TOKENS)
    fits = 0 < x[..., 0].numel() <= most and len(packed) and not x.requires_grad
    if fits and runs_natively(x, packed, scale, x_scale, bias, tiles=True):
        return launch_ternary(x, packed, scale, x_scale, bias)
    return ternary_linear_reference(x, packed, scale, x_scale, bias)


def _check(x, packed, scale, x_scale, bias) -> None:
    whole = x_scale is not None
    if (whole and x.dtype != torch.int8) or not (whole or x.is_floating_point()):
        raise UserError(
            f"x is {x.dtype}; use torch.int8 with an x_scale, as from absmax_int8, or floats "
            "without one"
        )
    _check_packed(packed, x.shape[-1])
    if scale.shape not in ((), packed.shape[:1]):
        raise UserError(
            f"scale has shape {list(scale.shape)}; {len(packed)} rows need [] or [{len(packed)}]"
        )
    if bias is not None and bias.shape != packed.shape[:1]:
        raise UserError(
            f"bias has shape {list(bias.shape)}; {len(packed)} rows need [{len(packed)}]"
        )
    if x_scale is not None and x_scale.shape != (*x.shape[:-1], 1):
        raise UserError(
            f"x_scale has shape {list(x_scale.shape)}; x {list(x.shape)} needs {[*x.shape[:-1], 1]}"
        )


def _check_packed(packed: torch.Tensor, columns: int) -> None:
    width = -(-columns // PER_BYTE)
    if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        raise UserError(
            f"packed is {packed.dtype} {list(packed.shape)}; {columns} columns need torch.uint8 "
            f"[out, {width}]"
        )


def ternary_linear_reference(x, packed, scale, x_scale=None, bias=None) -> torch.Tensor:
    """`ternary_linear` in torch, for checked arguments; it defines what the kernel computes.

    Whole numbers multiply as floats, which is exact up to 131,072 inputs in float32 and beyond them
    in float64; integer products are slow on CPUs and missing on GPUs.
    """
    codes = unpack_ternary(packed, x.shape[-1])
    dtype = torch.float32
    if x_scale is not None:
        scale = scale / x_scale
        if _LARGEST * x.shape[-1] > _EXACT:
            dtype = torch.float64
    with _without_autocast(x.device.type):
        sums = F.linear(x.to(dtype), codes.to(dtype)).float()
    y = sums * scale
    return y if bias is None else y + bias


def _without_autocast(device: str) -> contextlib.AbstractContextManager:
    """A context in which autocast, where the device has it, does not round products."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


@on_device
def launch_ternary(x, packed, scale, x_scale=None, bias=None) -> torch.Tensor:
    """`ternary_linear` by the kernel, for checked arguments with a row and a token at least."""
    rows, width = packed.shape
    flat = F.pad(x.reshape(-1, x.shape[-1]), (0, width * PER_BYTE - x.shape[-1]))
    tokens = len(flat)
    # Plane k holds the inputs 4 j + k.
    planes = flat.view(tokens, width, PER_BYTE).permute(2, 0, 1).contiguous()
    tiles = -(-rows // _OUT)
    steps = -(-width // _BYTES)
    splits, each = split_steps(steps, PROGRAMS // tiles, least=2)
    whole = x_scale is not None
    y = torch.empty(tokens, rows, dtype=torch.float32, device=x.device)
    parts = y
    if splits > 1:
        dtype = torch.int32 if whole else torch.float32
        parts = torch.empty(splits, tokens, rows, dtype=dtype, device=x.device)
    factors = [or_unread(one, y).detach().float().contiguous() for one in (scale, x_scale, bias)]
    last = (*factors, scale.stride(0) if scale.ndim else 0)
    forms = {"WHOLE": whole, "BIAS": bias is not None}
    ternary_kernel[(tiles, splits)](
        planes,
        packed.contiguous(),
        parts,
        *last,
        tokens,
        rows,
        width,
        **forms,
        STEPS=each,
        DONE=splits == 1,
        OUT=_OUT,
        BYTES=_BYTES,
        TOKENS=max(next_power_of_2(tokens), 16),
        WIDE=multiplies_wide(x.dtype),
        num_warps=4,
        num_stages=4,
        enable_fp_fusion=False,
    )
    if splits > 1:
        grid = (-(-tokens * rows // 1024),)
        add_kernel[grid](
            parts,
            y,
            *last,
            tokens,
            rows,
            **forms,
            SPLITS=splits,
            BLOCK=1024,
            enable_fp_fusion=False,
        )
    return y.view(*x.shape[:-1], rows)

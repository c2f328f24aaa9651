"""n:m weights without their zeros: packing and unpacking.

n of every m consecutive inputs are kept. A packed weight holds

* `values [out, in / m * n]`, the kept weights in the order of their inputs, zeros among them if
  they are kept;
* for 2:4 `codes`, int16 `[out, ceil(in / 16)]`: a group's code is `i + 4 j`, with i < j the places
  of its two weights, and group 4 b + g is in the four bits of word b from bit 4 g. That is nine
  bits a weight in 16-bit dtypes;
* for any other n:m `codes`, the mask as `selection.pack_bits` has it: uint8
  `[out, ceil(in / 8)]`.

Unpacking gives kept weights back bit by bit, -0.0 included, and 0.0 for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...errors import UserError
from ..launch import jit, next_power_of_2, on_device, runs_natively, tl
from ..topk.rule import pack_bits, unpack_bits

GROUPS_PER_WORD = 4  # groups whose 2:4 codes are one word
_MOST_GROUPS = 512  # one program unpacks at most so many groups


@dataclass(frozen=True)
class Packed:
    """A weight without what n:m removed, as the top of the file says."""

    values: torch.Tensor
    codes: torch.Tensor
    n: int
    m: int

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)` of the weight."""
        return self.values.shape[0], self.values.shape[1] // self.n * self.m


def pack_kept(weight: torch.Tensor, keep: torch.Tensor, n: int, m: int) -> Packed:
    """Pack the weights that a mask keeps.

    Args:
        weight: `[out, in]`.
        keep: bool `[out, in]`, True for exactly n of every m.
        n: weights that are kept of every group.
        m: weights of a group.
    """
    rows, width = weight.shape
    values = weight[keep].view(rows, width // m * n)
    if (n, m) != (2, 4):
        return Packed(values, pack_bits(keep), n, m)
    places = keep.view(rows, width // 4, 4).nonzero()[:, 2].view(rows, width // 4, 2)
    group = F.pad(places[..., 0] + 4 * places[..., 1], (0, -(width // 4) % GROUPS_PER_WORD))
    shifts = 4 * torch.arange(GROUPS_PER_WORD, device=weight.device)
    words = (group.unflatten(1, (-1, GROUPS_PER_WORD)) << shifts).sum(2)
    return Packed(values, words.to(torch.int16), n, m)


def unpack_n_of_m(packed: Packed) -> torch.Tensor:
    """The weight `[out, in]` with zeros where nothing is kept.

    Raises:
        UserError: values and codes that do not fit each other.
    """
    rows, width = packed.shape
    if (packed.n, packed.m) == (2, 4):
        check_codes_2_4(packed)
        if runs_natively(packed.values, packed.codes):
            return launch_unpack_2_4(packed)
        return unpack_2_4_reference(packed)
    mask = unpack_bits(packed.codes, width)
    if int(mask.sum()) != packed.values.numel():
        raise UserError(
            f"codes keep {int(mask.sum())} weights; the values hold {packed.values.numel()}"
        )
    return packed.values.new_zeros(rows, width).masked_scatter_(mask, packed.values)


def check_codes_2_4(packed: Packed) -> None:
    """Raise a `UserError` unless the codes of a 2:4 weight fit its values."""
    codes = packed.codes
    rows, width = packed.shape
    shape = (rows, -(-width // (4 * GROUPS_PER_WORD)))
    if codes.dtype != torch.int16 or codes.shape != shape:
        raise UserError(
            f"codes are {codes.dtype} {list(codes.shape)}; a 2:4 weight [{rows}, {width}] needs "
            f"torch.int16 {list(shape)}"
        )


def unpack_2_4_reference(packed: Packed) -> torch.Tensor:
    """`unpack_n_of_m` of 2:4 in torch, for codes that fit."""
    rows, width = packed.shape
    shifts = 4 * torch.arange(GROUPS_PER_WORD, device=packed.codes.device)
    code = (packed.codes.long()[..., None] >> shifts).flatten(1)[:, : width // 4]
    weight = packed.values.new_zeros(rows, width // 4, 4)
    places = torch.stack([code & 3, code >> 2 & 3], 2)
    return weight.scatter_(2, places, packed.values.unflatten(1, (-1, 2))).flatten(1)


def count_broken(weight: torch.Tensor, n: int, m: int) -> int:
    """How many groups of m of a weight `[out, in]` hold more than n weights other than 0."""
    groups = (weight != 0).reshape(weight.shape[0], weight.shape[1] // m, m)
    return int((groups.sum(2) > n).sum())


def is_n_of_m(weight: torch.Tensor, n: int, m: int) -> bool:
    """Whether each m consecutive inputs of a weight `[out, in]` hold at most n other than 0.

    False if m does not divide `in`.
    """
    return weight.shape[1] % m == 0 and not count_broken(weight, n, m)


def to_semi_structured(weight: torch.Tensor) -> torch.Tensor:
    """A 2:4 weight `[out, in]` as torch multiplies it on sparse tensor cores.

    torch uses cuSPARSELt or CUTLASS.

    Raises:
        UserError: a weight that is not 2:4, of float32, or not on a CUDA device, or a size that
            those libraries refuse.
    """
    if not is_n_of_m(weight, 2, 4):
        raise UserError(
            f"weight {list(weight.shape)} is not 2:4; prune it with pattern='2:4' first"
        )
    if weight.dtype not in (torch.float16, torch.bfloat16):
        raise UserError(f"weight is {weight.dtype}; sparse tensor cores take float16 or bfloat16")
    if not weight.is_cuda:
        raise UserError(
            f"weight is on {weight.device.type!r}; sparse tensor cores need a CUDA device"
        )
    try:
        return torch.sparse.to_sparse_semi_structured(weight.contiguous())
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"weight {list(weight.shape)} does not go on sparse tensor cores: {reason}"
        ) from error


def as_pairs(packed: Packed) -> torch.Tensor:
    """The values as 2:4 kernels read them: the two of a group in one integer, `[out, in / 4]`."""
    wide = torch.int32 if packed.values.element_size() == 2 else torch.int64
    values = packed.values.contiguous()
    if values.storage_offset() % 2:
        values = values.clone()  # a pair cannot begin at the second half of another
    return values.view(wide)


@on_device
def launch_unpack_2_4(packed: Packed) -> torch.Tensor:
    """`unpack_n_of_m` of 2:4 by the kernel, for codes that fit."""
    rows, width = packed.shape
    weight = torch.empty(rows, width, dtype=packed.values.dtype, device=packed.values.device)
    groups = width // 4
    block = min(max(next_power_of_2(groups), 16), _MOST_GROUPS)
    blocks = -(-groups // block)
    if rows * blocks:
        _unpack_kernel[(rows * blocks,)](
            as_pairs(packed),
            packed.codes.contiguous(),
            weight,
            groups,
            packed.codes.shape[1],
            blocks,
            BITS=8 * weight.element_size(),
            BLOCK=block,
            num_warps=4,
        )
    return weight


@jit
def halves(pair, dtype: tl.constexpr, BITS: tl.constexpr):
    """The two values of each pair; the first is the lower half."""
    if BITS == 16:
        first = pair.to(tl.int16)
        second = (pair >> 16).to(tl.int16)
    else:
        first = pair.to(tl.int32)
        second = (pair >> 32).to(tl.int32)
    return first.to(dtype, bitcast=True), second.to(dtype, bitcast=True)


@jit
def code_of_groups(word, OUT: tl.constexpr, WORDS: tl.constexpr):
    """The places i < j of the two weights of each group, both int32 `[OUT, 4 WORDS]`.

    They are decoded from words `[OUT, WORDS]`.
    """
    code = word.to(tl.int32)[:, :, None] >> (4 * tl.arange(0, 4))[None, None, :]
    code = tl.reshape(code, (OUT, 4 * WORDS))
    return code & 3, code >> 2 & 3


@jit
def expand(first, second, i, j, OUT: tl.constexpr, GROUPS: tl.constexpr):
    """Weights `[OUT, 4 GROUPS]` from the two of each group, `[OUT, GROUPS]`, and their places.

    Values stay within a thread.
    """
    zero = tl.zeros_like(first)
    w0 = tl.where(i == 0, first, zero)
    w1 = tl.where(i == 1, first, tl.where(j == 1, second, zero))
    w2 = tl.where(i == 2, first, tl.where(j == 2, second, zero))
    w3 = tl.where(j == 3, second, zero)
    return tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (OUT, 4 * GROUPS))


@jit
def _unpack_kernel(
    pairs, codes, weight, groups, words, blocks, BITS: tl.constexpr, BLOCK: tl.constexpr
):
    """One program for `BLOCK` groups of a row."""
    row = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(0) % blocks * BLOCK
    group = (start + tl.arange(0, BLOCK))[None, :]
    word = (start // 4 + tl.arange(0, BLOCK // 4))[None, :]
    pair = tl.load(pairs + row * groups + group, mask=group < groups, other=0)
    code = tl.load(codes + row * words + word, mask=word < words, other=0)
    first, second = halves(pair, weight.dtype.element_ty, BITS)
    i, j = code_of_groups(code, 1, BLOCK // 4)
    at = (4 * start + tl.arange(0, 4 * BLOCK))[None, :]
    tl.store(
        weight + row * groups * 4 + at, expand(first, second, i, j, 1, BLOCK), mask=at < groups * 4
    )

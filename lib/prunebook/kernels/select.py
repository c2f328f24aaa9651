"""Remove the k lowest-scored weights of each comparison group: score, exact selection and writing in one pass.

Groups are the rows of a weight or pieces of them (`select_rows`). Equal scores go lowest index first, so that the
result is that of a stable ascending sort; nothing is sorted. Groups too long for one program's registers, whole layers
and whole models are in `select_long`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import UserError
from .launch import jit, next_power_of_2, runs_natively, tl
from .scores import Factors, factored_score, load_score, order_key

LONGEST = 16384  # weights of a group that one program holds in registers
PER_BYTE = 8


@dataclass(frozen=True)
class Selection:
    """What was kept: `mask` bool `[out, in]` or `bits` uint8 `[out, ceil(in / 8)]` (input 8 b + j is bit j of byte b),
    whichever was asked for; `kept` int32 `[groups]`, of each group in row-major order."""

    kept: torch.Tensor
    mask: torch.Tensor | None = None
    bits: torch.Tensor | None = None


def keep_largest(rows: torch.Tensor, removed: int | torch.Tensor) -> torch.Tensor:
    """All but the `removed` smallest of each row `[groups, size]`; equal scores go lowest index first.

    Selects the threshold instead of sorting; the result equals that of a stable ascending sort. `removed` is one
    number, or one for each row, `[groups]`.
    """
    if isinstance(removed, torch.Tensor):
        counts = removed.unique().tolist()
        if len(counts) > 1:
            keep = torch.empty_like(rows, dtype=torch.bool)
            for count in counts:
                chosen = (removed == count).nonzero().flatten().to(rows.device)
                keep[chosen] = keep_largest(rows[chosen], count)
            return keep
        removed = counts[0]
    if removed == 0:
        return torch.ones_like(rows, dtype=torch.bool)
    threshold = kth_smallest(rows, removed)
    keep = rows > threshold
    # Ties at the threshold: the last ones stay where more would go than were asked for.
    surplus = (rows.shape[1] - removed) - keep.sum(1)
    need = torch.nonzero(surplus).flatten()
    if len(need):
        tied = rows[need] == threshold[need]
        from_the_right = tied.flip(1).cumsum(1, dtype=torch.int32).flip(1)
        keep[need] |= tied & (from_the_right <= surplus[need, None])
    return keep


def kth_smallest(rows: torch.Tensor, k: int) -> torch.Tensor:
    """The k-th smallest value (k from 1) of each row, float32 or float64: `[groups, size]` -> `[groups, 1]`."""
    if rows.device.type == "cpu":  # numpy's vectorised selection is about ten times faster there
        return torch.from_numpy(np.partition(rows.numpy(), k - 1, axis=1)[:, k - 1 : k].copy())
    return rows.kthvalue(k, dim=1, keepdim=True).values


def pack_bits(keep: torch.Tensor) -> torch.Tensor:
    """`keep [out, in]` eight to a byte: uint8 `[out, ceil(in / 8)]`, input 8 b + j in bit j of byte b, the rest 0."""
    padded = torch.nn.functional.pad(keep.to(torch.uint8), (0, -keep.shape[1] % PER_BYTE))
    places = torch.arange(PER_BYTE, device=keep.device, dtype=torch.uint8)
    return (padded.unflatten(1, (-1, PER_BYTE)) << places).sum(2, dtype=torch.uint8)


def unpack_bits(bits: torch.Tensor, columns: int) -> torch.Tensor:
    """The mask bool `[out, columns]` of `bits`, uint8 `[out, ceil(columns / 8)]`; see `pack_bits`.

    Raises:
        UserError: `bits` is not of that shape and dtype.
    """
    width = -(-columns // PER_BYTE)
    if bits.dtype != torch.uint8 or bits.ndim != 2 or bits.shape[1] != width:
        raise UserError(f"bits are {bits.dtype} {list(bits.shape)}; {columns} columns need torch.uint8 [out, {width}]")
    places = torch.arange(PER_BYTE, device=bits.device, dtype=torch.uint8)
    return (bits[..., None] >> places & 1).flatten(1)[:, :columns].bool()


def select_rows(
    weight: torch.Tensor,
    removed: int | torch.Tensor,
    factors: Factors = Factors(),  # noqa: B008 - immutable
    *,
    group: int | None = None,
    write: bool = True,
    want: str | None = None,
) -> Selection:
    """Remove the lowest-scored weights of each group of `group` consecutive inputs, by default of each row.

    Args:
        weight: `[out, in]`, float32, float16 or bfloat16, of any strides.
        removed: how many go from every group, or int64 `[groups]`, one count each, groups in row-major order.
        factors: of the score; by default it is the magnitude.
        group: inputs that are compared together, a divisor of `in`.
        write: set what goes to zero in `weight`, in place.
        want: 'mask' or 'bits' for what is kept, None for its counts alone.

    Raises:
        UserError: arguments that do not fit each other, or scores with NaN or infinity; rows without may then have
            been written.
    """
    factors.check(weight)
    counts = _check(weight, removed, group, want)
    group = group or weight.shape[1]
    if runs_natively(weight, *factors.pointers(weight)) and group <= LONGEST:
        return launch_select(weight, counts, factors, group, write, want)
    return select_rows_reference(weight, counts, factors, group, write, want)


def _check(weight: torch.Tensor, removed: int | torch.Tensor, group: int | None, want: str | None) -> torch.Tensor:
    """The counts as a tensor `[groups]`, on the CPU or where they were given."""
    if want not in (None, "mask", "bits"):
        raise UserError(f"want {want!r} is unknown; use 'mask', 'bits' or None")
    if not weight.is_floating_point() or weight.dtype == torch.float64:
        raise UserError(f"weight is {weight.dtype}; use float32, float16 or bfloat16")
    rows, width = weight.shape
    group = width if group is None else group
    if group < 1 or width % group:
        raise UserError(f"group {group} does not divide the {width} inputs of the weight")
    groups = rows * (width // group)
    if not isinstance(removed, torch.Tensor):
        removed = torch.full((groups,), removed, dtype=torch.int64)
    if removed.shape != (groups,):
        raise UserError(f"removed has shape {list(removed.shape)}; {groups} groups need [{groups}]")
    if groups and not 0 <= int(removed.min()) <= int(removed.max()) <= group:
        raise UserError(f"removed reaches from {int(removed.min())} to {int(removed.max())}; allowed is 0 to {group}")
    return removed


def select_rows_reference(weight, counts, factors, group, write, want) -> Selection:
    """`select_rows` in torch, for checked arguments; it defines what the kernel computes."""
    scores = factored_score(weight, factors)
    refuse_not_finite(torch.isfinite(scores).all(1))
    keep = keep_largest(scores.reshape(-1, group), counts)
    kept = keep.sum(1, dtype=torch.int32)
    keep = keep.view(weight.shape)
    if write:
        weight.masked_fill_(~keep, 0)
    return Selection(kept, keep if want == "mask" else None, pack_bits(keep) if want == "bits" else None)


def refuse_not_finite(finite: torch.Tensor) -> None:
    """Raise a `UserError` unless all of `finite [rows]` hold."""
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise UserError(f"scores of row {row} hold NaN or infinity; weights and calibration norms must be finite")


def launch_select(weight, counts, factors, group, write, want) -> Selection:
    """`select_rows` by the kernel, for checked arguments and groups of at most `LONGEST`."""
    rows, width = weight.shape
    per_row, bytes_per_row = width // group, -(-width // PER_BYTE)
    in_bytes = want == "bits" and (group % PER_BYTE == 0 or per_row == 1)  # else a byte belongs to several groups
    new = {"device": weight.device}
    mask = torch.empty(rows, width, dtype=torch.bool, **new) if want and not in_bytes else None
    bits = torch.empty(rows, bytes_per_row, dtype=torch.uint8, **new) if in_bytes else None
    kept = torch.empty(rows * per_row, dtype=torch.int32, **new)
    finite = torch.empty(rows * per_row, dtype=torch.bool, **new)
    block = max(next_power_of_2(group), 2 * PER_BYTE)
    if len(kept):
        _select_kernel[(len(kept),)](
            weight, *factors.pointers(weight), counts.to(dtype=torch.int32, **new),
            kept if mask is None else mask, kept if bits is None else bits, kept, finite,
            group, per_row, *weight.stride(), width, bytes_per_row,
            FORM=factors.form, WRITE=write, MASK=mask is not None, BITS=in_bytes, BLOCK=block,
            num_warps=_warps(block), enable_fp_fusion=False,
        )  # fmt: skip
    refuse_not_finite(finite.view(rows, per_row).all(1))
    if want == "bits" and not in_bytes:
        bits = pack_bits(mask)
    return Selection(kept, mask if want == "mask" else None, bits)


def _warps(block: int) -> int:
    """Sixteen weights a thread, at most sixteen warps."""
    return min(max(block // 512, 1), 16)


@jit
def _select_kernel(
    weight, columns, column_sums, row_sums, removed, mask, bits, kept, finite,
    group, per_row, row_stride, column_stride, mask_stride, bits_stride,
    FORM: tl.constexpr, WRITE: tl.constexpr, MASK: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a group. Scores are not negative, so their bit patterns rank as whole numbers: find the smallest
    threshold with `k` keys at or below it, then drop ties from the left."""
    program = tl.program_id(0)
    row = (program // per_row).to(tl.int64)
    first = program % per_row * group
    place = tl.arange(0, BLOCK)
    inside = place < group
    cols = first + place
    address = weight + row * row_stride + cols.to(tl.int64) * column_stride
    w = tl.load(address, mask=inside, other=0.0)
    key = order_key(load_score(w, columns, column_sums, row_sums, row, cols, inside, FORM))
    k = tl.load(removed + program)

    low = tl.min(tl.where(inside, key, 0x7FFFFFFF), 0)
    high = tl.max(tl.where(inside, key, 0), 0)
    good = high < 0x7F800000
    tl.store(finite + program, good)
    key = tl.where(inside, key, 0x7FFFFFFF)
    if k == 0:
        high = low
    # Throughout: fewer than k keys are below `low`, `below` of them; at least k are at most `high`, `at_most` of them.
    below = 0
    at_most = group
    found = k == 0
    step = 0
    while (low < high) & (not found):
        middle = low + ((high - low) >> 1)
        if step % 4 != 3:  # interpolate; every fourth step halves, which bounds their number
            share = (k - below - 0.5) / (at_most - below).to(tl.float32)
            middle = tl.minimum(low + ((high - low).to(tl.float32) * share).to(tl.int32), high - 1)
        count = tl.sum((key <= middle).to(tl.int32), 0)
        if count == k:
            low = middle
            found = True
        elif count > k:
            high = middle
            at_most = count
        else:
            low = middle + 1
            below = count
        step += 1

    if k == 0:
        gone = place < 0
    elif found:
        gone = key <= low
    else:
        tied = key == low
        gone = (key < low) | (tied & (tl.cumsum(tied.to(tl.int32), 0) <= k - below))
    keep = inside & (gone == 0)
    tl.store(kept + program, tl.sum(keep.to(tl.int32), 0))
    if WRITE:
        tl.store(address, tl.where(keep, w, 0.0).to(w.dtype), mask=inside & good)
    if MASK:
        tl.store(mask + row * mask_stride + cols, keep, mask=inside)
    if BITS:
        eight = tl.reshape(keep.to(tl.int32), (BLOCK // 8, 8)) << tl.arange(0, 8)[None, :]
        byte = tl.arange(0, BLOCK // 8)
        target = bits + row * bits_stride + first // 8 + byte
        tl.store(target, tl.sum(eight, 1).to(tl.uint8), mask=byte * 8 < group)

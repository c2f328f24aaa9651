"""The kernel for groups of up to 16,384 weights, which one program holds in its registers.

Each weight is read once and written once.
"""

from __future__ import annotations

import torch

from ..launch import jit, next_power_of_2, on_device, or_unread, tl
from ..score import Score, load_score, order_key
from .rule import PER_BYTE, Selection, pack_bits, refuse_not_finite

LONGEST = 16384


@on_device
def launch_short(
    score: Score,
    removed: torch.Tensor,
    group: int,
    write: bool,
    want: str | None,
    *,
    check: bool = True,
) -> Selection:
    """`select_rows` by the kernel, for checked arguments.

    Args:
        check: refuse scores that are not finite, for which the host waits for the device.
    """
    weight = score.weight
    rows, width = weight.shape
    per_row = width // max(group, 1)
    bytes_per_row = -(-width // PER_BYTE)
    new = {"device": weight.device}
    mask = None
    bits = None
    # The kernel writes bits where each byte belongs to one group.
    if want == "bits" and (group % PER_BYTE == 0 or per_row == 1):
        bits = torch.empty(rows, bytes_per_row, dtype=torch.uint8, **new)
    elif want:
        mask = torch.empty(rows, width, dtype=torch.bool, **new)
    kept = torch.empty(rows * per_row, dtype=torch.int32, **new)
    finite = torch.empty(rows * per_row, dtype=torch.bool, **new)
    block = max(next_power_of_2(group), 2 * PER_BYTE)
    if len(kept):
        _select_kernel[(len(kept),)](
            *score.pointers(),
            removed.to(dtype=torch.int32, **new),
            or_unread(mask, kept),
            or_unread(bits, kept),
            kept,
            finite,
            group,
            per_row,
            *weight.stride(),
            width,
            bytes_per_row,
            FORM=score.form,
            WRITE=write,
            MASK=mask is not None,
            BITS=bits is not None,
            BLOCK=block,
            num_warps=_warps(block),
            enable_fp_fusion=False,
        )
    if check:
        refuse_not_finite(finite.view(rows, per_row).all(1))
    if want == "bits" and bits is None:
        bits = pack_bits(mask)
        mask = None
    return Selection(kept, mask, bits)


def _warps(block: int) -> int:
    """How many warps a program has: sixteen weights a thread, at most sixteen warps."""
    return min(max(block // 512, 1), 16)


@jit
def _select_kernel(
    weight,
    columns,
    column_sums,
    row_sums,
    removed,
    mask,
    bits,
    kept,
    finite,
    group,
    per_row,
    row_stride,
    column_stride,
    mask_stride,
    bits_stride,
    FORM: tl.constexpr,
    WRITE: tl.constexpr,
    MASK: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program selects in one group.

    It finds the smallest key with at least `k` keys at or below it, then drops its ties from the
    left, as far as `k` reaches.
    """
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
    high = tl.max(tl.where(inside, key, -0x80000000), 0)
    good = high < 0x7F800000
    if FORM == 3:
        good = high == high
    tl.store(finite + program, good)
    key = tl.where(inside, key, 0x7FFFFFFF)
    # Throughout: fewer than k keys are below `low`, `below` of them; at least k are at most `high`,
    # `at_most` of them.
    below = 0
    at_most = group
    found = k == 0
    step = 0
    while (low < high) & (not found):
        span = high.to(tl.int64) - low
        if step % 4 == 3:  # halves now and then, which bounds the number of steps
            ahead = span >> 1
        else:  # interpolates, which is twice as fast on weights
            share = (k - below - 0.5) / (at_most - below).to(tl.float32)
            ahead = tl.minimum((span.to(tl.float32) * share).to(tl.int64), span - 1)
        middle = (low + ahead).to(tl.int32)
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

"""The kernels for groups beyond one program's registers: long rows, whole layers, whole models.

They are a radix select. Four histograms, each of eight bits of the scores' order, find the k-th
smallest score. Each program then counts its ties with it, so that a prefix sum over the programs
says which of them go. A last pass writes. Counts are whole numbers: the result does not depend on
the order in which programs run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..launch import jit, next_power_of_2, on_device, or_unread, tl
from ..score import Score, load_score, order_key
from .rule import Selection, pack_bits, refuse_not_finite

# Bits of a key in one histogram. Triton counts by votes of a warp, whose work grows with the bins.
_DIGIT = 8
_SHIFTS = (24, 16, 8, 0)
_BLOCK = 2048  # a program takes so many weights of a row at a time
_PROGRAM = 16384  # a program takes about so many weights in all
MOST_GROUPS = 65535  # most groups of one call: CUDA's limit for the second size of a grid


@on_device
def launch_long(
    pieces: Sequence[Score],
    removed: torch.Tensor,
    write: bool,
    want: str | None,
    *,
    check: bool = True,
) -> list[Selection]:
    """Select in groups that are the rows of one piece, or in one group of all pieces together.

    Args:
        pieces: scores, each `[out, in]`.
        removed: int64 `[out]` for one piece's rows, at most `MOST_GROUPS`; `[1]` for one group of
            all.
        check: refuse scores that are not finite, for which the host waits for the device.

    Returns:
        The selection of each piece, whose `kept` counts its part of each group.

    Raises:
        UserError: scores with NaN or infinity; nothing has been written then.
    """
    device = pieces[0].weight.device
    groups = len(removed)
    calls = [_call(piece, groups) for piece in pieces]
    # The rank of the k-th smallest key among those that share the threshold's leading bits.
    rank = removed.to(device)
    threshold = torch.zeros(groups, dtype=torch.int64, device=device)
    for shift in _SHIFTS:
        counts = torch.zeros(groups, 1 << _DIGIT, dtype=torch.int64, device=device)
        for grid, arguments, options in calls:
            _histogram_kernel[grid](
                *arguments, threshold, counts, SHIFT=shift, WIDTH=_DIGIT, **options
            )
        cumulated = counts.cumsum(1)
        digit = (cumulated < rank[:, None]).sum(1)
        below = cumulated.gather(1, (digit - 1).clamp(min=0)[:, None])[:, 0]
        rank = rank - torch.where(digit > 0, below, 0)
        threshold = threshold << _DIGIT | digit
    # Keys below the threshold go, and the first `rank` of those equal to it.
    ties = [torch.zeros(*grid[::-1], dtype=torch.int32, device=device) for grid, _, _ in calls]
    finite = [torch.ones_like(tied, dtype=torch.bool) for tied in ties]
    for (grid, arguments, options), tied, good in zip(calls, ties, finite, strict=True):
        _ties_kernel[grid](*arguments, threshold, tied, good, **options)
    if check:
        refuse_not_finite(torch.cat(finite, 1).all(1), rows=groups > 1)
    every = torch.cat(ties, 1)
    before = (every.cumsum(1) - every).split([tied.shape[1] for tied in ties], 1)
    selections = []
    for piece, (grid, arguments, options), already in zip(pieces, calls, before, strict=True):
        mask = None
        if want:
            mask = torch.empty(piece.shape, dtype=torch.bool, device=device)
        kept = torch.empty(already.shape, dtype=torch.int32, device=device)
        _write_kernel[grid](
            *arguments,
            threshold,
            rank,
            already.contiguous(),
            or_unread(mask, kept),
            kept,
            WRITE=write,
            MASK=mask is not None,
            **options,
        )
        bits = None
        if want == "bits":
            bits = pack_bits(mask)
            mask = None
        selections.append(Selection(kept.sum(1, dtype=torch.int32), mask, bits))
    return selections


def _call(piece: Score, groups: int) -> tuple[tuple, tuple, dict]:
    """The grid, the first arguments and the options of each kernel for one piece."""
    rows, width = piece.shape
    block = min(_BLOCK, next_power_of_2(width))
    per_row = -(-width // block)
    blocks = per_row * rows // max(groups, 1)  # blocks of one group
    steps = max(_PROGRAM // block, 1)
    grid = (-(-blocks // steps), groups)
    arguments = (*piece.pointers(), blocks, per_row, width, *piece.weight.stride())
    options = {"FORM": piece.form, "BLOCK": block, "STEPS": steps}
    return grid, arguments, options | {"num_warps": 8, "enable_fp_fusion": False}


@jit
def _load_keys(
    weight,
    columns,
    column_sums,
    row_sums,
    blocks,
    per_row,
    width,
    row_stride,
    column_stride,
    group,
    block,
    FORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weights and keys, as unsigned numbers, of one block of a group, which is a piece of a row."""
    row = (group + block // per_row).to(tl.int64)  # a group is one row, or all of them
    cols = block % per_row * BLOCK + tl.arange(0, BLOCK)
    inside = (cols < width) & (block < blocks)
    row = tl.where(block < blocks, row, 0)
    address = weight + row * row_stride + cols.to(tl.int64) * column_stride
    w = tl.load(address, mask=inside, other=0.0)
    key = order_key(load_score(w, columns, column_sums, row_sums, row, cols, inside, FORM))
    return w, (key ^ -0x80000000).to(tl.uint32, bitcast=True), inside, address, row * width + cols


@jit
def _histogram_kernel(
    weight,
    columns,
    column_sums,
    row_sums,
    blocks,
    per_row,
    width,
    row_stride,
    column_stride,
    threshold,
    counts,
    SHIFT: tl.constexpr,
    WIDTH: tl.constexpr,
    FORM: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Count the digit at `SHIFT` of the keys whose leading bits are those of the threshold."""
    group = tl.program_id(1)
    leading = tl.load(threshold + group).to(tl.uint32)
    bins = tl.arange(0, 1 << WIDTH)
    total = tl.zeros((1 << WIDTH,), tl.int32)
    for step in range(STEPS):
        _, key, inside, _, _ = _load_keys(
            weight,
            columns,
            column_sums,
            row_sums,
            blocks,
            per_row,
            width,
            row_stride,
            column_stride,
            group,
            tl.program_id(0) * STEPS + step,
            FORM,
            BLOCK,
        )
        chosen = inside
        if SHIFT + WIDTH < 32:
            chosen = inside & ((key >> (SHIFT + WIDTH)) == leading)
        digit = ((key >> SHIFT) & ((1 << WIDTH) - 1)).to(tl.int32)
        total += tl.histogram(digit, 1 << WIDTH, mask=chosen)
    tl.atomic_add(counts + group * (1 << WIDTH) + bins, total.to(tl.int64), mask=total > 0)


@jit
def _ties_kernel(
    weight,
    columns,
    column_sums,
    row_sums,
    blocks,
    per_row,
    width,
    row_stride,
    column_stride,
    threshold,
    ties,
    finite,
    FORM: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Count each program's keys at the threshold, and tell whether its scores are finite."""
    group = tl.program_id(1)
    at = tl.load(threshold + group).to(tl.uint32)
    tied = 0
    good = True
    for step in range(STEPS):
        _, key, inside, _, _ = _load_keys(
            weight,
            columns,
            column_sums,
            row_sums,
            blocks,
            per_row,
            width,
            row_stride,
            column_stride,
            group,
            tl.program_id(0) * STEPS + step,
            FORM,
            BLOCK,
        )
        tied += tl.sum((inside & (key == at)).to(tl.int32), 0)
        good = good & (tl.max(tl.where(inside, key, 0), 0) < 0xFF800000)  # the key of infinity
    program = group * tl.num_programs(0) + tl.program_id(0)
    tl.store(ties + program, tied)
    if FORM != 3:
        tl.store(finite + program, good)


@jit
def _write_kernel(
    weight,
    columns,
    column_sums,
    row_sums,
    blocks,
    per_row,
    width,
    row_stride,
    column_stride,
    threshold,
    rank,
    before,
    mask,
    kept,
    WRITE: tl.constexpr,
    MASK: tl.constexpr,
    FORM: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Write zeros, the mask and the number of kept weights; `before` counts ties to the left."""
    group = tl.program_id(1)
    program = group * tl.num_programs(0) + tl.program_id(0)
    at = tl.load(threshold + group).to(tl.uint32)
    go = tl.load(rank + group)
    seen = tl.load(before + program)
    total = 0
    for step in range(STEPS):
        w, key, inside, address, place = _load_keys(
            weight,
            columns,
            column_sums,
            row_sums,
            blocks,
            per_row,
            width,
            row_stride,
            column_stride,
            group,
            tl.program_id(0) * STEPS + step,
            FORM,
            BLOCK,
        )
        tied = (inside & (key == at)).to(tl.int32)
        may_go = tl.minimum(go - seen, BLOCK).to(tl.int32)
        gone = (key < at) | ((key == at) & (tl.cumsum(tied, 0) <= may_go))
        seen += tl.sum(tied, 0)
        keep = inside & (gone == 0)
        total += tl.sum(keep.to(tl.int32), 0)
        if WRITE:
            tl.store(address, tl.where(keep, w, 0.0).to(w.dtype), mask=inside)
        if MASK:
            tl.store(mask + place, keep, mask=inside)
    tl.store(kept + program, total)

"""The Triton kernels of decode attention with the mass of each slot, and their launch.

`decode` has the reference. There are two passes, with the slots split among programs as in
Flash-Decoding (Dao, Haziza, Massa and Sizov, 2023). The first pass reads keys and values once for
all heads of a group; it leaves partial outputs and the logits. The second normalises both. There
are no atomics: the result is the same in every run.
"""

import math
from functools import partial

import torch

from ..launch import PROGRAMS, jit, multiplies_wide, next_power_of_2, on_device, split_steps, tl
from .mass_kernels import loop
from .noise import Perturbation, as_arguments, gumbel_log2, row_stream

_TILE = 16384  # a program reads so many bytes of keys or values at a time

_SLOTS = 256  # slots of a program of the second pass


@jit
def _dot(a, b, WIDE: tl.constexpr):
    """A product of tiles. Three products of tf32 make up for one of float32."""
    if WIDE:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="tf32x3")


@partial(jit, do_not_specialize=["stream"])
def split_kernel(
    query,
    keys,
    values,
    positions,
    logits,
    tops,
    totals,
    mass_tops,
    mass_totals,
    parts,
    k_batch,
    k_head,
    k_slot,
    k_column,
    v_batch,
    v_head,
    v_slot,
    v_column,
    slots,
    pitch,
    span,
    kv_heads,
    scale,
    temperatures,
    places,
    stream,
    FORM: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    V_WIDTH: tl.constexpr,
    V_COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program for `span` slots, a multiple of `BLOCK`, of one KV head.

    All query heads of the group are the rows of one tile. The program writes logits, with `scale`
    in units of log2 and -inf for empty slots, into rows of `pitch`, and for its split the maximum,
    the sum of 2^(logit - maximum) and the values weighted by that. Perturbed logits are written in
    the place of plain ones, with a maximum and a sum of their own.
    """
    tile = tl.program_id(0).to(tl.int64)
    batch = tile // kv_heads
    head = tile % kv_heads
    member = tl.arange(0, ROWS)[:, None]
    place = tl.arange(0, BLOCK)
    column = tl.arange(0, COLUMNS)[None, :]
    v_at = tl.arange(0, V_COLUMNS)[None, :]
    real = member < GROUP
    row = tile * GROUP + member
    q = tl.load(query + row * WIDTH + column, mask=real & (column < WIDTH), other=0.0)
    first = tl.program_id(1) * span
    k_base = keys + batch * k_batch + head * k_head + first.to(tl.int64) * k_slot
    v_base = values + batch * v_batch + head * v_head + first.to(tl.int64) * v_slot
    k_tile = place[:, None] * k_slot + column * k_column
    v_tile = place[:, None] * v_slot + v_at * v_column
    # finite, so that a split without a held slot has no NaN
    top = tl.full((ROWS,), -1.0e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, V_COLUMNS), tl.float32)
    if FORM != 0:
        strength = 1 / tl.load(temperatures + batch)
        mass_top = top
        mass_total = total
    if FORM == 2:
        rows = row_stream(stream, head * GROUP + member, tl.load(places + batch))
    for start in loop(first, tl.minimum(first + span, slots), BLOCK):
        inside = start + place < slots
        position = tl.load(positions + tile * slots + start + place, mask=inside, other=-1)
        held = position >= 0
        k = tl.load(k_base + k_tile, mask=inside[:, None] & (column < WIDTH), other=0.0)
        x = tl.where(held[None, :], _dot(q, tl.trans(k), WIDE) * scale, -float("inf"))
        y = x
        if FORM != 0:
            y *= strength
        if FORM == 2:
            y += gumbel_log2(rows, position[None, :]) * strength
        tl.store(logits + row * pitch + (start + place)[None, :], y, mask=real)
        if FORM != 0:
            above = tl.maximum(mass_top, tl.max(y, 1))
            mass_total = mass_total * tl.exp2(mass_top - above) + tl.sum(
                tl.exp2(y - above[:, None]), 1
            )
            mass_top = above
        higher = tl.maximum(top, tl.max(x, 1))
        weight = tl.exp2(x - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weight, 1)
        v = tl.load(v_base + v_tile, mask=held[:, None] & (v_at < V_WIDTH), other=0.0)
        near = weight.to(v.dtype)
        sums = sums * shrink[:, None] + _dot(near, v, WIDE)
        if v.dtype != tl.float32:  # what rounding took, so that the output is rounded once
            sums += _dot((weight - near.to(tl.float32)).to(v.dtype), v, WIDE)
        top = higher
        k_base = k_base + BLOCK * k_slot
        v_base = v_base + BLOCK * v_slot
    to = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(tops + to, top[:, None], mask=real)
    tl.store(totals + to, total[:, None], mask=real)
    if FORM != 0:
        tl.store(mass_tops + to, mass_top[:, None], mask=real)
        tl.store(mass_totals + to, mass_total[:, None], mask=real)
    tl.store(parts + to * V_COLUMNS + v_at, sums, mask=real)


@jit
def _levels(tops, totals, row, splits, SPLITS: tl.constexpr):
    """The maximum of a row of logits, and the inverse of the sum of 2^(logit - maximum), or 0."""
    split = tl.arange(0, SPLITS)
    each = tl.load(tops + row * splits + split, mask=split < splits, other=-float("inf"))
    top = tl.max(each, 0)
    total = tl.sum(
        tl.load(totals + row * splits + split, mask=split < splits, other=0.0)
        * tl.exp2(each - top),
        0,
    )
    return top, tl.where(total > 0, 1.0 / tl.where(total > 0, total, 1.0), 0.0)


@jit
def combine_kernel(
    logits,
    tops,
    totals,
    mass_tops,
    mass_totals,
    parts,
    output,
    mass,
    slots,
    pitch,
    splits,
    SPLITS: tl.constexpr,
    GROUP: tl.constexpr,
    V_WIDTH: tl.constexpr,
    V_COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program for the mass of `BLOCK` slots; the first ones also sum a query head's output."""
    tile = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), tl.float32)
    for member in range(GROUP):
        row = tile * GROUP + member
        top, inverse = _levels(mass_tops, mass_totals, row, splits, SPLITS)
        x = tl.load(logits + row * pitch + slot, mask=slot < slots, other=-float("inf"))
        sums += tl.exp2(x - top) * inverse
    tl.store(mass + tile * slots + slot, sums, mask=slot < slots)
    if tl.program_id(1) < GROUP:
        row = tile * GROUP + tl.program_id(1)
        top, inverse = _levels(tops, totals, row, splits, SPLITS)
        column = tl.arange(0, V_COLUMNS)
        found = tl.zeros((V_COLUMNS,), tl.float32)
        for start in range(0, SPLITS, 16):
            split = start + tl.arange(0, 16)
            weight = tl.exp2(
                tl.load(tops + row * splits + split, mask=split < splits, other=-float("inf")) - top
            )
            at = parts + (row * splits + split)[:, None] * V_COLUMNS + column[None, :]
            found += tl.sum(
                weight[:, None] * tl.load(at, mask=(split < splits)[:, None], other=0.0), 0
            )
        to = output + row * V_WIDTH + column
        tl.store(to, (found * inverse).to(output.dtype.element_ty), mask=column < V_WIDTH)


@on_device
def launch_decode(
    query, keys, values, positions, scaling: float, perturbation: Perturbation | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`decode_with_mass` by the kernels, for checked arguments that are not empty."""
    batch, heads, width = query.shape
    _, kv_heads, slots, v_width = values.shape
    size = query.element_size()
    group = heads // kv_heads
    tiles = batch * kv_heads
    rows = max(next_power_of_2(group), 16)
    columns = max(next_power_of_2(width), 16)
    v_columns = max(next_power_of_2(v_width), 16)
    block = min(max(_TILE // (max(columns, v_columns) * size), 16), 128 // size)
    steps = -(-slots // block)
    splits, each = split_steps(steps, PROGRAMS // tiles)
    new = {"dtype": torch.float32, "device": query.device}
    logits = torch.empty(batch * heads, steps * block, **new)
    parts = torch.empty(batch * heads, splits * v_columns, **new)
    levels = torch.empty(2, batch * heads, splits, **new)
    of_mass = levels if perturbation is None else torch.empty_like(levels)
    form, temperatures, places, stream = as_arguments(perturbation, batch, positions)
    output = torch.empty(batch, heads, v_width, dtype=values.dtype, device=query.device)
    mass = torch.empty(batch, kv_heads, slots, **new)
    shape = {"GROUP": group, "V_WIDTH": v_width, "V_COLUMNS": v_columns}
    split_kernel[(tiles, splits)](
        query.contiguous(),
        keys,
        values,
        positions.contiguous(),
        logits,
        *levels,
        *of_mass,
        parts,
        *keys.stride(),
        *values.stride(),
        slots,
        steps * block,
        each * block,
        kv_heads,
        scaling * math.log2(math.e),
        temperatures,
        places,
        stream,
        FORM=form,
        ROWS=rows,
        BLOCK=block,
        WIDTH=width,
        COLUMNS=columns,
        WIDE=multiplies_wide(query.dtype),
        num_warps=4,
        num_stages=3,
        **shape,
    )
    combine_kernel[(tiles, max(-(-slots // _SLOTS), group))](
        logits,
        *levels,
        *of_mass,
        parts,
        output,
        mass,
        slots,
        steps * block,
        splits,
        SPLITS=next_power_of_2(splits),
        BLOCK=_SLOTS,
        **shape,
    )
    return output, mass

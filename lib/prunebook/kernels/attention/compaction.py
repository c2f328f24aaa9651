"""Compaction of slots: kept rows move together, for each row of a batch and each head on its own.

Attention does not depend on the order of slots. So in place, with n of S rows kept, the holes below
n are filled by the survivors above it, the first by the first. That takes n (1 - n / S) moves on
average, whose sources and targets have no slot in common, and no second allocation. The slots from
n on are free to be written, but their memory is not freed: a tensor cannot give back the ends of
its rows. Freeing it takes a smaller tensor, into which survivors are copied in their order: n reads
and writes, with both tensors in memory for that time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import UserError
from ..launch import jit, next_power_of_2, on_device, runs_natively, tl

# Rows move as integers of the same size.
_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SCANNED = 4096  # a program scans so many slots at a time
_MOVED = 4096  # a program moves so many elements


def fill_holes(keep: torch.Tensor, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Move the rows that are kept to the first slots, in place and in no order.

    Args:
        keep: bool `[batch, heads, slots]`.
        tensors: `[batch, heads, slots]` or `[batch, heads, slots, width]`, of up to 8 bytes a
            number.

    Returns:
        The number n of rows that each head keeps, int64 `[batch, heads]`. Slots from n on are not
        changed.

    Raises:
        UserError: shapes that do not fit `keep`, or a tensor whose rows share memory.
    """
    _check(keep, tensors)
    for index, x in enumerate(tensors):
        if any(size > 1 and not stride for size, stride in zip(x.shape, x.stride(), strict=True)):
            raise UserError(
                f"tensor {index} has rows that share memory; clone it to compact it in place"
            )
    if keep.numel() and runs_natively(keep, *tensors):
        return launch_fill_holes(keep, tensors)
    return fill_holes_reference(keep, tensors)


def fill_holes_reference(keep: torch.Tensor, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """`fill_holes` in torch, for checked arguments; it defines what the kernels do."""
    kept = keep.sum(-1)
    below = torch.arange(keep.shape[2], device=keep.device) < kept[..., None]
    *head, target = (below & ~keep).nonzero(as_tuple=True)
    # Each head has as many sources as targets.
    source = (keep & ~below).nonzero(as_tuple=True)[-1]
    for x in tensors:
        x[(*head, target)] = x[(*head, source)]
    return kept


def take_kept(
    keep: torch.Tensor, slots: int, tensors: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Copy the first rows that are kept into new tensors, in their order.

    Args:
        keep: bool `[batch, heads, old slots]`.
        slots: slots of the new tensors; heads that keep more rows lose the last ones.
        tensors: `[batch, heads, old slots]` or `[batch, heads, old slots, width]`, of up to 8 bytes
            a number.

    Returns:
        `[batch, heads, slots]` or `[batch, heads, slots, width]` for each tensor, with 0 in the
        slots behind the kept rows.

    Raises:
        UserError: shapes that do not fit `keep`, or negative slots.
    """
    _check(keep, tensors)
    if slots < 0:
        raise UserError(f"slots {slots} is not allowed; use a number >= 0")
    if keep.numel() and slots and runs_natively(keep, *tensors):
        return launch_take_kept(keep, slots, tensors)
    return take_kept_reference(keep, slots, tensors)


def take_kept_reference(
    keep: torch.Tensor, slots: int, tensors: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """`take_kept` in torch, for checked arguments; it defines what the kernels do."""
    if not keep.numel():
        return [x.new_zeros(*x.shape[:2], slots, *x.shape[3:]) for x in tensors]
    rank = keep.cumsum(-1)
    places = torch.arange(slots, device=keep.device)
    old = torch.arange(keep.shape[2], device=keep.device)
    # Rows that are not copied go to one slot more, which is then cut off.
    target = (rank - 1).masked_fill(~keep | (rank > slots), slots)
    source = rank.new_zeros(*keep.shape[:2], slots + 1)
    source = source.scatter_(2, target, old.expand_as(target))[..., :slots]
    # Every head fills the first `full` slots.
    full = min(int(rank[..., -1].min()), slots)
    behind = places[full:] >= rank[..., -1:]
    new = []
    for x in tensors:
        bits = x.view(_INTEGER[x.element_size()])
        more = (1,) * (x.ndim - 3)
        taken = bits.gather(2, source.view(*source.shape, *more).expand(-1, -1, -1, *x.shape[3:]))
        taken[:, :, full:].masked_fill_(behind.view(*behind.shape, *more), 0)
        new.append(taken.view(x.dtype))
    return new


def _check(keep: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    if keep.ndim != 3 or keep.dtype != torch.bool:
        raise UserError(
            f"keep is {keep.dtype} {list(keep.shape)}; use torch.bool [batch, heads, slots]"
        )
    shape = list(keep.shape)
    for index, x in enumerate(tensors):
        if x.ndim not in (3, 4) or list(x.shape[:3]) != shape:
            raise UserError(
                f"tensor {index} has shape {list(x.shape)}; keep {shape} needs {shape} and perhaps "
                "a width"
            )


@on_device
def launch_fill_holes(keep: torch.Tensor, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """`fill_holes` by the kernels, for checked arguments that are not empty."""
    # A head has no more moves than holes, and no more than survivors above them.
    most = keep.shape[2] // 2
    *moves, kept = _list(keep, most, True)
    for x in tensors:
        _move(x, x, moves, most, True)
    return kept


@on_device
def launch_take_kept(
    keep: torch.Tensor, slots: int, tensors: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """`take_kept` by the kernels, for checked arguments that are not empty."""
    *moves, _ = _list(keep, slots, False)
    new = [x.new_empty(*x.shape[:2], slots, *x.shape[3:]) for x in tensors]
    for into, x in zip(new, tensors, strict=True):
        _move(x, into, moves, slots, False)
    return new


def _list(keep: torch.Tensor, most: int, in_place: bool) -> tuple[torch.Tensor, ...]:
    """The moves of each head.

    Without `in_place` kept row i goes to slot i, and the targets are not used.

    Returns:
        Sources and targets of the moves, int32 `[batch, heads, most]`, the number of moves, and the
        number of kept rows, both int64 `[batch, heads]`.
    """
    keep = keep.contiguous()
    batch, heads, slots = keep.shape
    sources = torch.empty(batch, heads, max(most, 1), dtype=torch.int32, device=keep.device)
    targets = sources
    if in_place:
        targets = torch.empty_like(sources)
    moves, kept = torch.empty(2, batch, heads, dtype=torch.int64, device=keep.device)
    block = min(next_power_of_2(slots), _SCANNED)
    _list_kernel[(batch * heads,)](
        keep,
        sources,
        targets,
        moves,
        kept,
        slots,
        most,
        IN_PLACE=in_place,
        BLOCK=block,
        num_warps=min(max(block // 256, 1), 8),
    )
    return sources, targets, moves, kept


def _move(
    x: torch.Tensor, into: torch.Tensor, moves: Sequence[torch.Tensor], most: int, in_place: bool
) -> None:
    """Do the moves of `_list` from `x` to `into`; without `in_place` also write 0 behind them."""
    x = _as_integers(x)
    into = _as_integers(into)
    batch, heads, _, width = x.shape
    columns = next_power_of_2(width)
    rows = max(min(_MOVED // columns, next_power_of_2(most)), 1)
    if x.numel() and most:
        _move_kernel[(batch * heads, -(-most // rows))](
            x,
            into,
            *moves,
            *x.stride(),
            *into.stride(),
            heads,
            most,
            WIDTH=width,
            IN_PLACE=in_place,
            ROWS=rows,
            COLUMNS=columns,
        )


def _as_integers(x: torch.Tensor) -> torch.Tensor:
    """A view `[batch, heads, slots, width]` of integers, width 1 where there was none."""
    if x.ndim == 3:
        x = x.unsqueeze(3)
    return x.view(_INTEGER[x.element_size()])


@jit
def _list_kernel(
    keep, sources, targets, moves, kept, slots, most, IN_PLACE: tl.constexpr, BLOCK: tl.constexpr
):
    """One program for one head counts the kept rows, then lists the moves in one scan."""
    head = tl.program_id(0).to(tl.int64)
    keep += head * slots
    sources += head * most
    targets += head * most
    total = 0
    start = 0
    while start < slots:
        slot = start + tl.arange(0, BLOCK)
        total += tl.sum(tl.load(keep + slot, mask=slot < slots, other=0).to(tl.int32), 0)
        start += BLOCK
    moved = 0
    holes = 0
    start = 0
    while start < slots:
        slot = start + tl.arange(0, BLOCK)
        keeps = tl.load(keep + slot, mask=slot < slots, other=0).to(tl.int32)
        moving = keeps
        if IN_PLACE:
            moving = tl.where(slot >= total, keeps, 0)
            hole = tl.where(slot < total, 1 - keeps, 0)
            rank = holes + tl.cumsum(hole, 0) - 1
            tl.store(targets + rank, slot, mask=hole != 0)
            holes += tl.sum(hole, 0)
        rank = moved + tl.cumsum(moving, 0) - 1
        tl.store(sources + rank, slot, mask=(moving != 0) & (rank < most))
        moved += tl.sum(moving, 0)
        start += BLOCK
    tl.store(moves + head, tl.minimum(moved, most).to(tl.int64))
    tl.store(kept + head, total.to(tl.int64))


@jit
def _move_kernel(
    x,
    into,
    sources,
    targets,
    moves,
    x_batch,
    x_head,
    x_row,
    x_column,
    into_batch,
    into_head,
    into_row,
    into_column,
    heads,
    most,
    WIDTH: tl.constexpr,
    IN_PLACE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program for `ROWS` moves of one head."""
    pair = tl.program_id(0).to(tl.int64)
    batch = pair // heads
    head = pair % heads
    move = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    real = move < tl.load(moves + pair)
    source = tl.load(sources + pair * most + move, mask=real, other=0).to(tl.int64)
    target = move.to(tl.int64)
    written = move < most
    if IN_PLACE:
        target = tl.load(targets + pair * most + move, mask=real, other=0).to(tl.int64)
        written = real
    column = tl.arange(0, COLUMNS)[None, :]
    inside = column < WIDTH
    at = x + batch * x_batch + head * x_head + source[:, None] * x_row + column * x_column
    row = tl.load(at, mask=real[:, None] & inside, other=0)
    at = (
        into
        + batch * into_batch
        + head * into_head
        + target[:, None] * into_row
        + column * into_column
    )
    tl.store(at, row, mask=written[:, None] & inside)

"""The Triton kernels of the attention mass of keys, and their launch; `mass` has the reference.

There are two passes. The first is the forward of flash attention without values: the log-sum-exp of
each query, which torch's attention does not return. The second keeps a block of keys and reads the
queries that see it, so that every sum stays in registers and is stored once. There are no atomics:
the result is the same in every run.
"""

import math
from functools import partial

import torch

from ..launch import jit, multiplies_wide, next_power_of_2, on_device, tl, triton
from .noise import NOISY, Perturbation, as_arguments, gumbel_log2, row_stream


def _loop(low, high, step):
    """`range` in Triton's interpreter, whose scalars NumPy takes for no integers."""
    low, high = (x if isinstance(x, int) else x.handle.data.item() for x in (low, high))
    return range(low, high, step)


loop = _loop if triton is None or triton.knobs.runtime.interpret else tl.range


@jit
def _logits(a, b, WIDE: tl.constexpr):
    """Products of rows, `[rows of a, rows of b]`; three of tf32 make up for one of float32."""
    if WIDE:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, tl.trans(b), input_precision="tf32x3")


@partial(jit, do_not_specialize=["stream"])
def lse_kernel(
    query,
    keys,
    positions,
    lse,
    q_batch,
    q_head,
    q_row,
    q_column,
    k_batch,
    k_head,
    k_row,
    k_column,
    p_row,
    n,
    scale,
    temperatures,
    places,
    stream,
    oldest,
    heads,
    group,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    FORM: tl.constexpr,
    WINDOW: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program for a block of queries of one head.

    It writes log2 of the sum of 2^logit, with `scale` in units of log2, over the keys that each
    query sees, and infinity for padding, which then weighs nothing.
    """
    batch = (tl.program_id(0) // heads).to(tl.int64)
    head = (tl.program_id(0) % heads).to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    first = (tl.num_programs(1) - 1 - tl.program_id(1)) * QUERIES  # the longest first
    row = first + tl.arange(0, QUERIES)
    at = (
        query
        + batch * q_batch
        + head * q_head
        + row.to(tl.int64)[:, None] * q_row
        + column * q_column
    )
    q = tl.load(at, mask=(row < n)[:, None] & (column < WIDTH), other=0.0)
    place = tl.arange(0, KEYS)
    low = 0
    since = 0
    if WINDOW:
        since = tl.load(oldest + batch * p_row + row, mask=row < n, other=n)[:, None]
        low = tl.min(tl.min(since, 1), 0)
    base = keys + batch * k_batch + (head // group) * k_head + tl.cast(low, tl.int64) * k_row
    tile = place[:, None] * k_row + column * k_column
    strength = 1.0
    rows = row
    if FORM != 0:
        strength = 1 / tl.load(temperatures + batch)
    if FORM == 2:
        rows = row_stream(stream, head, tl.load(places + batch * n + row, mask=row < n, other=0))
    top = tl.full((QUERIES,), -1.0e30, tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    for start in loop(low, tl.minimum(first + QUERIES, n), KEYS):
        key = start + place
        k = tl.load(base + tile, mask=(key < n)[:, None] & (column < WIDTH), other=0.0)
        position = tl.load(positions + batch * p_row + key, mask=key < n, other=-1)
        seen = (key[None, :] <= row[:, None]) & (position[None, :] >= 0)
        if WINDOW:
            seen = seen & (key[None, :] >= since)
        x = _logits(q, k, WIDE) * (scale * strength)
        if FORM == 2:
            x += gumbel_log2(rows[:, None], position.to(tl.int64)[None, :]) * strength
        x = tl.where(seen, x, -float("inf"))  # padding may hold NaN
        higher = tl.maximum(top, tl.max(x, 1))
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(x - higher[:, None]), 1)
        top = higher
        base += KEYS * k_row
    real = tl.load(positions + batch * p_row + row, mask=row < n, other=-1) >= 0
    found = tl.where(real, top + tl.log2(tl.where(real, total, 1.0)), float("inf"))
    tl.store(lse + tl.program_id(0).to(tl.int64) * n + row, found, mask=row < n)


@partial(jit, do_not_specialize=["stream"])
def mass_kernel(
    query,
    keys,
    positions,
    lse,
    q_batch,
    q_head,
    q_row,
    q_column,
    k_batch,
    k_head,
    k_row,
    k_column,
    p_row,
    n,
    scale,
    temperatures,
    places,
    stream,
    end,
    mass,
    kv_heads,
    GROUP: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    FORM: tl.constexpr,
    WINDOW: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program for a block of keys of one KV head.

    It reads the queries from its first key on, head by head.
    """
    batch = (tl.program_id(0) // kv_heads).to(tl.int64)
    head = (tl.program_id(0) % kv_heads).to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    low = tl.program_id(1) * KEYS  # the longest come first
    key = low + tl.arange(0, KEYS)
    at = (
        keys
        + batch * k_batch
        + head * k_head
        + key.to(tl.int64)[:, None] * k_row
        + column * k_column
    )
    k = tl.load(at, mask=(key < n)[:, None] & (column < WIDTH), other=0.0)
    place = tl.arange(0, QUERIES)
    high = n
    until = n
    if WINDOW:
        until = tl.load(end + batch * p_row + key, mask=key < n, other=0)[:, None]
        high = tl.max(tl.max(until, 1), 0)
    tile = place[:, None] * q_row + column * q_column
    position = tl.load(positions + batch * p_row + key, mask=key < n, other=-1)
    strength = 1.0
    if FORM != 0:
        strength = 1 / tl.load(temperatures + batch)
    sums = tl.zeros((KEYS,), tl.float32)
    for member in range(GROUP):
        of_head = head * GROUP + member
        base = query + batch * q_batch + of_head * q_head + low.to(tl.int64) * q_row
        levels = lse + (batch * kv_heads * GROUP + of_head) * n
        for start in loop(low, high, QUERIES):
            row = start + place
            q = tl.load(base + tile, mask=(row < n)[:, None] & (column < WIDTH), other=0.0)
            level = tl.load(levels + row, mask=row < n, other=float("inf"))
            x = _logits(k, q, WIDE) * (scale * strength)
            if FORM == 2:
                rows = row_stream(
                    stream, of_head, tl.load(places + batch * n + row, mask=row < n, other=0)
                )
                x += gumbel_log2(rows[None, :], position.to(tl.int64)[:, None]) * strength
            weight = tl.exp2(x - level[None, :])
            # padded queries see nothing
            seen = (row[None, :] >= key[:, None]) & (level[None, :] < float("inf"))
            if WINDOW:
                seen = seen & (row[None, :] < until)
            sums += tl.sum(tl.where(seen, weight, 0.0), 1)
            base += QUERIES * q_row
    target = mass + tl.program_id(0).to(tl.int64) * n + key
    tl.store(target, tl.where(position >= 0, sums, 0.0), mask=key < n)


@on_device
def launch_attention_mass(
    query,
    keys,
    positions,
    scaling: float,
    window: int | None = None,
    perturbation: Perturbation | None = None,
) -> torch.Tensor:
    """`attention_mass` by the kernels, for checked arguments of the dtypes that they take."""
    batch, heads, n, width = query.shape
    kv_heads = keys.shape[1]
    new = {"dtype": torch.float32, "device": query.device}
    lse = torch.empty(batch, heads, n, **new)
    mass = torch.empty(batch, kv_heads, n, **new)
    at = positions.to(torch.int32).contiguous().expand(batch, n)
    oldest, end = (at, at) if window is None else _spans(positions, window)
    form, temperatures, places, stream = as_arguments(perturbation, batch, at)
    stays, moves = _tiles(query, form)
    options = {
        "FORM": form,
        "WINDOW": window is not None,
        "WIDTH": width,
        "COLUMNS": max(next_power_of_2(width), 16),
        "WIDE": multiplies_wide(query.dtype),
        "num_warps": 4,
        "num_stages": 3,
    }
    arguments = (
        query,
        keys,
        at,
        lse,
        *query.stride(),
        *keys.stride(),
        at.stride(0),
        n,
        scaling * math.log2(math.e),
        temperatures,
        places,
        stream,
    )
    blocks = -(-n // stays)
    group = heads // kv_heads
    lse_kernel[(batch * heads, blocks)](
        *arguments, oldest, heads, group, QUERIES=stays, KEYS=moves, **options
    )
    mass_kernel[(batch * kv_heads, blocks)](
        *arguments, end, mass, kv_heads, GROUP=group, KEYS=stays, QUERIES=moves, **options
    )
    return mass


def _spans(positions: torch.Tensor, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the keys that each query sees begin, and where the queries that see each key end.

    Both are int32 of the shape of `positions`.
    """
    read = (positions >= 0).cumsum(1)  # ascending, unlike positions with padding
    return (
        torch.searchsorted(read, positions + 2 - window, out_int32=True),
        torch.searchsorted(read, positions + window, right=True, out_int32=True),
    )


def _tiles(query: torch.Tensor, form: int) -> tuple[int, int]:
    """Rows that a program keeps, and rows that it reads at a time.

    Chosen by compiling: four warps hold them without spilling. No run on a GPU is recorded yet.
    """
    # Float32 takes three products and twice the bytes, noise takes hashes of 64 bits.
    if query.dtype == torch.float32 or form == NOISY:
        return 64, 32
    return (128, 64) if query.shape[-1] <= 128 else (64, 64)

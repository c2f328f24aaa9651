"""Attention mass: what each key of a prompt gets from all queries, without the matrix of weights.

    mass[j] = sum over queries i and heads of the group: softmax_j(scaling q_i k_j)

The softmax is over the keys that query i sees. Keyformer perturbs logits first, see `noise`.

A GPU takes two passes. The first is the forward of flash attention without values: the log-sum-exp
of each query, which torch's attention does not return. The second keeps a block of keys and reads
the queries that see it, so that every sum stays in registers and is stored once. There are no
atomics: the result is the same in every run.
"""

import math

import torch

from ...errors import UserError
from ..launch import multiplies_wide, next_power_of_2, on_device, runs_natively
from .mass_kernels import lse_kernel, mass_kernel
from .noise import NOISY, Perturbation, as_arguments

MASKED = -1e30  # logit of a hidden key; finite, so that a padded query's row holds no NaN

# Most logits that the reference holds at once: 4 MB, which fit a cache, and 256 MB.
_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}

_KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_WIDEST = 512  # most bytes of a head: its tiles fit the shared memory of an H100


def attention_mass(
    query: torch.Tensor,
    keys: torch.Tensor,
    positions: torch.Tensor,
    scaling: float,
    window: int | None = None,
    perturbation: Perturbation | None = None,
) -> torch.Tensor:
    """Softmax weights summed over a prompt's queries and a KV head's query heads; no gradients.

    Args:
        query: `[batch, heads, n, width]` for a prompt of n tokens.
        keys: `[batch, kv heads, n, width]`, of the same float dtype, after the rotary embedding.
            Query heads `h // group` share a KV head.
        positions: int64 `[batch or 1, n]`: 0, 1, ... over a row's own tokens, -1 for padding, which
            may be anywhere.
        scaling: factor of the logits.
        window: number of newest keys that a query sees, its own included; None for all.
        perturbation: perturbation of the scaled logits, of n queries; None for none.

    Returns:
        `[batch, kv heads, n]` in float32, or float64 for float64; 0 for padding.

    Raises:
        UserError: shapes or dtypes that do not fit each other, or a window below 1.
    """
    _check(query, keys, positions, window)
    if perturbation is not None:
        perturbation.check(query.shape[0], query.shape[2], query.device)
    fits = query.dtype in _KERNEL_DTYPES and query.shape[-1] * query.element_size() <= _WIDEST
    if fits and query.numel() and runs_natively(query, keys, positions, tiles=True):
        return launch_attention_mass(query, keys, positions, scaling, window, perturbation)
    return attention_mass_reference(query, keys, positions, scaling, window, perturbation)


def attention_mass_reference(
    query, keys, positions, scaling, window=None, perturbation=None
) -> torch.Tensor:
    """`attention_mass` in torch, for checked arguments; it defines what the kernels compute.

    It takes a block of queries at a time, for memory O(block * n).
    """
    batch, heads, n, _ = query.shape
    kv_heads = keys.shape[1]
    dtype = torch.promote_types(query.dtype, torch.float32)
    sums = torch.zeros(batch, kv_heads, n, dtype=dtype, device=query.device)
    size = max(_ELEMENTS.get(query.device.type, 1 << 20) // max(batch * heads * n, 1), 1)
    for first in range(0, n, size):
        block = slice(first, min(first + size, n))
        at = positions[:, block, None]
        before = positions[:, None, : block.stop]
        hidden = (before < 0) | (before > at)  # [batch, queries, keys]
        if window is not None:
            hidden |= before <= at - window
        logits = grouped_logits(query[:, :, block], keys[:, :, : block.stop], scaling)
        if perturbation is not None:
            logits = perturbation.of(logits, before, block)
        weights = logits.masked_fill_(hidden[:, None, None], MASKED).softmax(-1).flatten(2, 3)
        # Padded queries add nothing.
        counts = (positions[:, block] >= 0).to(weights.dtype).repeat(1, heads // kv_heads)
        sums[:, :, : block.stop] += (counts[:, None, None] @ weights).squeeze(2)
    return sums


def _check(query, keys, positions, window) -> None:
    shape = list(query.shape)
    if query.ndim != 4 or not query.is_floating_point():
        raise UserError(f"query is {query.dtype} {shape}; use floats [batch, heads, n, width]")
    batch, heads, n, width = shape
    fits = (
        keys.ndim == 4 and keys.shape[1] and not heads % keys.shape[1] and keys.dtype == query.dtype
    )
    if not fits or [keys.shape[0], *keys.shape[2:]] != [batch, n, width]:
        needed = f"{query.dtype} [{batch}, a divisor of {heads}, {n}, {width}]"
        raise UserError(f"keys are {keys.dtype} {list(keys.shape)}; query {shape} needs {needed}")
    if positions.dtype != torch.int64 or list(positions.shape) not in ([batch, n], [1, n]):
        raise UserError(
            f"positions are {positions.dtype} {list(positions.shape)}; query {shape} needs "
            f"torch.int64 [{batch}, {n}] or [1, {n}]"
        )
    if window is not None and window < 1:
        raise UserError(f"window {window} is not allowed; use a number of keys >= 1, or None")


def grouped_logits(query: torch.Tensor, keys: torch.Tensor, scaling: float) -> torch.Tensor:
    """Scaled logits `[batch, kv heads, group, queries, keys]` in at least float32.

    Args:
        query: `[batch, heads, queries, width]`.
        keys: `[batch, kv heads, keys, width]`.
    """
    batch, heads, count, width = query.shape
    kv_heads = keys.shape[1]
    wide = torch.promote_types(query.dtype, torch.float32)  # products of float16 may overflow
    logits = (query.to(wide) * scaling).reshape(batch, kv_heads, -1, width) @ keys.to(wide).mT
    return logits.view(batch, kv_heads, heads // kv_heads, count, -1)


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

"""Attention mass: what each key of a prompt gets from all queries, without the matrix of weights.

    mass[j] = sum over queries i and heads of the group: softmax_j(scaling q_i k_j)

The softmax is over the keys that query i sees. Keyformer perturbs logits first, see `noise`.

Here are the checks and the reference in torch; the kernels of a GPU are in `mass_kernels`.
"""

import torch

from ...errors import UserError
from ..launch import runs_natively
from .mass_kernels import launch_attention_mass
from .noise import Perturbation

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

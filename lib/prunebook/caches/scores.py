"""Scores of the prompt's keys: what all its queries add, without the square attention matrix."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

MASKED = -1e30  # finite, so that a padded query's row holds no NaN
_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}  # of the logits held at once: 4 MB, which fit a cache, and 256 MB


@dataclass(frozen=True)
class Rows:
    """Where rows of logits `[batch, kv heads, group, queries, keys]` stand. Positions count a row's own tokens, from 0,
    without padding, which is -1; a first size of 1 stands for the whole batch.

    layer: index. queries: `[batch, queries]`. keys: `[batch, 1 or kv heads, keys]`. steps: `[batch]`, tokens read after
    the prompt, 0 in the prompt.
    """

    layer: int
    queries: torch.Tensor
    keys: torch.Tensor
    steps: torch.Tensor


Gain = Callable[[torch.Tensor, Rows], torch.Tensor]  # logits -> what each query adds to the score of each key


def grouped_logits(query: torch.Tensor, keys: torch.Tensor, scaling: float) -> torch.Tensor:
    """`[batch, kv heads, group, queries, keys]` in at least float32; query heads `h // group` share a KV head.

    Args:
        query: `[batch, heads, queries, width]`. keys: `[batch, kv heads, keys, width]`.
    """
    batch, heads, count, width = query.shape
    kv_heads = keys.shape[1]
    wide = torch.promote_types(query.dtype, torch.float32)  # products of float16 may overflow
    logits = (query.to(wide) * scaling).reshape(batch, kv_heads, -1, width) @ keys.to(wide).mT
    return logits.view(batch, kv_heads, heads // kv_heads, count, -1)


def prompt_scores(
    gain: Gain, query: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor, scaling: float, layer: int
) -> torch.Tensor:
    """What the queries of a prompt of n tokens add to its keys, summed over queries and the heads of a group:
    `[batch, kv heads, n]`. A block of queries at a time, memory O(block * n).

    Args:
        query: `[batch, heads, n, width]`. keys: `[batch, kv heads, n, width]`, both after the rotary embedding.
        positions: int64 `[batch or 1, n]`, -1 for padding.
    """
    batch, heads, n, _ = query.shape
    kv_heads = keys.shape[1]
    sums = torch.zeros(batch, kv_heads, n, dtype=torch.promote_types(query.dtype, torch.float32), device=query.device)
    steps = torch.zeros(len(positions), dtype=torch.int64, device=query.device)
    block = max(_ELEMENTS.get(query.device.type, 1 << 20) // (batch * heads * n), 1)
    for first in range(0, n, block):
        last = min(first + block, n)
        at = Rows(layer, positions[:, first:last], positions[:, None, :last], steps)
        logits = grouped_logits(query[:, :, first:last], keys[:, :, :last], scaling)
        hidden = (at.keys < 0) | (at.keys > at.queries[:, :, None])  # [batch, queries, keys]
        added = gain(logits.masked_fill_(hidden[:, None, None], MASKED), at).flatten(2, 3)
        counts = (at.queries >= 0).to(added.dtype).repeat(1, heads // kv_heads)  # padded queries add nothing
        sums[:, :, :last] += (counts[:, None, None] @ added).squeeze(2)
    return sums

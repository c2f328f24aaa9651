"""Scores of the prompt's keys: what all its queries add, without the square attention matrix."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..kernels.attention_mass import attention_mass, sums_by_key


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


def attention_weights(logits: torch.Tensor, at: Rows) -> torch.Tensor:
    """What a query adds to the score of each key: its attention."""
    return logits.softmax(-1)


def prompt_scores(
    gain: Gain, query: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor, scaling: float, layer: int
) -> torch.Tensor:
    """What the queries of a prompt of n tokens add to its keys, summed over queries and the heads of a group:
    `[batch, kv heads, n]`. A block of queries at a time; for `attention_weights` on a GPU by a kernel.

    Args:
        query: `[batch, heads, n, width]`. keys: `[batch, kv heads, n, width]`, both after the rotary embedding.
        positions: int64 `[batch or 1, n]`, -1 for padding.
    """
    if gain is attention_weights:
        return attention_mass(query, keys, positions, scaling)
    steps = torch.zeros(len(positions), dtype=torch.int64, device=query.device)

    def added(logits: torch.Tensor, block: slice) -> torch.Tensor:
        return gain(logits, Rows(layer, positions[:, block], positions[:, None, : block.stop], steps))

    return sums_by_key(added, query, keys, positions, scaling)

"""Trim a scored model to given sizes: the best units of each axis stay.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (Minitron,
NeurIPS 2024, arXiv 2407.14679): every axis is sorted by score and a prefix is kept. All blocks lose
the same number of units, so that the result is an ordinary model.
"""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from ...models.anatomy import all_sublayers
from ...models.channels import keep_channels
from ...models.sizes import top_k
from ...models.surgery import keep_heads, keep_neurons, remove_blocks, sync_config
from .activations import Importance


def trim(
    model: PreTrainedModel,
    sizes: Mapping[str, int],
    importance: Importance,
    block_scores: torch.Tensor,
) -> None:
    """Leave the best of each axis in place.

    Args:
        model: the model that was scored.
        sizes: axis -> what stays of it; other axes are left as they are.
        importance: scores of heads, neurons and hidden channels.
        block_scores: `[L]`; blocks of high score stay.
    """
    # Heads and neurons are ranked inside their block.
    scores = zip(all_sublayers(model), importance.heads, importance.neurons, strict=True)
    for parts, head_scores, neuron_scores in scores:
        if "heads" in sizes:
            keep_heads(parts, _best_heads(head_scores, parts.kv_heads, sizes["heads"]))
        if "neurons" in sizes:
            keep_neurons(parts, top_k(neuron_scores, sizes["neurons"]))
    # Blocks of lowest score go, next to each other or not.
    if "blocks" in sizes:
        kept_blocks = top_k(block_scores, sizes["blocks"])
        remove_blocks(model, set(range(len(block_scores))) - set(kept_blocks))
    sync_config(model)
    # Hidden channels are one axis of the whole model.
    if "hidden" in sizes:
        keep_channels(model, top_k(importance.hidden, sizes["hidden"]))


def _best_heads(scores: torch.Tensor, groups: int, count: int) -> list[int]:
    """The `count` query heads that stay: the best of each key-value head, equally many of each.

    Args:
        scores: `[H]`.
        groups: number of key-value heads, each read by H / groups query heads in a row.
        count: heads that stay, a multiple of `groups`.
    """
    # Heads of one key-value head compete with each other alone.
    kept_heads = []
    by_group = scores.view(groups, -1)
    for group, group_scores in enumerate(by_group):
        first_head = group * by_group.shape[1]
        kept_heads += [first_head + head for head in top_k(group_scores, count // groups)]
    return kept_heads

"""Scores of coupled groups: how the saliences of their weights add up.

Ma et al., LLM-Pruner (NeurIPS 2023, arXiv 2305.11627), equations 3 to 5; official code
horseee/LLM-Pruner at 128a07d. The order of summation is that of the official code. A group is what
must go together: an MLP neuron, a key-value head with the query heads that read it, or a hidden
channel.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from ...models.anatomy import Sublayers, all_sublayers, norms

AGGREGATIONS = ("sum", "prod", "max", "last")
# dimensions of a weight [out, in]
ROWS = 0
COLUMNS = 1


def unit_scores(
    parts: Sublayers,
    salience: Mapping[nn.Parameter, torch.Tensor],
    criterion: str,
    aggregation: str = "sum",
    credit: str = "contiguous",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the key-value heads `[K]`, with their query heads, and of the neurons `[m]`.

    Args:
        parts: the sublayers of one block.
        salience: parameter -> S, as from `taylor.saliences`.
        criterion: one of `taylor.CRITERIA`.
        aggregation: over the matrices of a group, `sum`, `prod`, `max` or the `last` alone.
        credit: which query heads count for key-value head k: those that read it (`contiguous`), or
            as in the official code k, k + K, k + 2K, ... (`strided`).
    """
    # The channels of the heads are rows of three matrices and columns of the fourth: score each.
    query = row_or_column_scores(salience[parts.query.weight], ROWS, criterion)
    key = row_or_column_scores(salience[parts.key.weight], ROWS, criterion)
    value = row_or_column_scores(salience[parts.value.weight], ROWS, criterion)
    out = row_or_column_scores(salience[parts.out.weight], COLUMNS, criterion)
    # The scores of query heads add up for the key-value head that they are credited to.
    members = [
        credited_scores(query, parts, credit),
        key,
        value,
        credited_scores(out, parts, credit),
    ]
    # The official order: matrices first, then the channels of a head.
    heads = aggregate(members, aggregation).view(parts.kv_heads, -1).sum(1)
    # A neuron is a row of every first matrix and a column of the last.
    members = [
        row_or_column_scores(salience[linear.weight], ROWS, criterion) for linear in parts.first
    ]
    members.append(row_or_column_scores(salience[parts.last.weight], COLUMNS, criterion))
    return heads, aggregate(members, aggregation)


def channel_scores(
    model: PreTrainedModel,
    salience: Mapping[nn.Parameter, torch.Tensor],
    criterion: str,
    aggregation: str = "sum",
) -> torch.Tensor:
    """Scores of the hidden channels of the whole model, `[d]`.

    A channel is an entry of every norm, a column of the embedding, of an `lm_head` that is not tied
    to it and of every projection that reads it, and a row of every projection that writes it.
    `prod` returns the logarithm, since the product of so many would overflow or underflow.

    Args:
        model: the model.
        salience: parameter -> S of all parameters, as from `taylor.saliences(channels=True)`.
        criterion: one of `taylor.CRITERIA`.
        aggregation: as for `unit_scores`.
    """
    embedding = model.get_input_embeddings()
    lm_head = model.get_output_embeddings()
    readers = []
    writers = []
    for parts in all_sublayers(model):
        readers += [parts.query, parts.key, parts.value, *parts.first]
        writers += [parts.out, parts.last]
    readers.append(embedding)
    if lm_head.weight is not embedding.weight:
        readers.append(lm_head)
    # The score of a channel is that of its group, which spans the whole model.
    members = [salience[norm.weight].abs() for norm in norms(model)]
    members += [
        row_or_column_scores(salience[reader.weight], COLUMNS, criterion) for reader in readers
    ]
    members += [
        row_or_column_scores(salience[writer.weight], ROWS, criterion) for writer in writers
    ]
    if aggregation == "prod":
        return aggregate([member.double().log() for member in members], "sum")
    return aggregate(members, aggregation)


def row_or_column_scores(salience: torch.Tensor, dim: int, criterion: str) -> torch.Tensor:
    """A matrix's part in the score of each of its rows or columns (equations 3 to 5).

    Args:
        salience: S, `[out, in]`, as from `taylor.weight_salience`.
        dim: `ROWS` for a score of each row, `COLUMNS` for one of each column.
        criterion: one of `taylor.CRITERIA`.

    Returns:
        float32 `[out]` or `[in]`.
    """
    other = 1 - dim
    # In float32: sums of bfloat16 would be equal too often.
    salience = salience.float()
    if criterion == "vector":
        # equation 3: signs cancel inside a row or column
        return salience.sum(other).abs()
    # equations 4 and 5: every weight counts
    return salience.abs().sum(other)


def credited_scores(scores: torch.Tensor, parts: Sublayers, credit: str) -> torch.Tensor:
    """Scores `[H * head_dim]` of query channels, summed for each key-value head, `[K * head_dim]`.

    Args:
        scores: one for each channel of the query heads.
        parts: the sublayers of the block.
        credit: as for `unit_scores`.
    """
    groups = parts.kv_heads
    repeats = parts.heads // groups
    if credit == "contiguous":
        return scores.view(groups, repeats, -1).sum(1).flatten()
    return scores.view(repeats, groups, -1).sum(0).flatten()


def aggregate(members: Sequence[torch.Tensor], aggregation: str) -> torch.Tensor:
    """The scores of groups from those of their members.

    Args:
        members: for each matrix its part in the score of each group, `[groups]`.
        aggregation: one of `AGGREGATIONS`.

    Returns:
        float64 `[groups]`.
    """
    stacked = torch.stack([member.double() for member in members])
    if aggregation == "last":
        return stacked[-1]
    if aggregation == "max":
        return stacked.amax(0)
    if aggregation == "prod":
        return stacked.prod(0)
    return stacked.sum(0)


def random_scores(
    parts: Sublayers, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of key-value heads `[K]` and neurons `[m]` that say nothing, a rival of the paper.

    Args:
        parts: the sublayers of one block.
        generator: what they are drawn with, heads first.
    """
    heads = torch.rand(parts.kv_heads, generator=generator)
    neurons = torch.rand(parts.neurons, generator=generator)
    return heads, neurons

"""Gradient times weight of coupled groups: what the loss would change by if a head, a neuron or a
channel went.

Ma et al., LLM-Pruner (NeurIPS 2023, arXiv 2305.11627), equations 3 to 5; official code
horseee/LLM-Pruner at 128a07d, whose orders of summation, mean over samples and factors these are.
"""

from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm

from ...errors import UserError
from ...models.anatomy import Sublayers, find_blocks, norms, sublayers
from ...passes.backward import backward, block_gradients, windows_by_batch

CRITERIA = ("vector", "element1", "element2", "mix", "l2")
AGGREGATIONS = ("sum", "prod", "max", "last")


@torch.no_grad()
def saliences(
    model,
    tokens: torch.Tensor | None,
    criterion: str,
    *,
    channels: bool = False,
    precision: str = "exact",
    progress: str | None = None,
) -> dict[nn.Parameter, torch.Tensor]:
    """Each weight's part in the score, S, of the shape of the weight; g is the gradient of the mean
    next-token loss.

    `vector` and `element1`: W g. `element2`: W A W, with A the mean over windows of their squared
    gradients. `mix`: W g - W A W / 2. `l2`: W^2, without data.

    Args:
        tokens: int64 `[n, length]`.
        channels: for embeddings and norms too, not only what is inside the blocks.

    Returns:
        Parameter -> S.

    Raises:
        UserError: bad tokens, or gradients that are not finite.
    """
    if criterion == "l2":
        return {parameter: parameter.detach().square() for parameter in model.parameters()}
    squares = criterion in ("element2", "mix")
    batches = windows_by_batch(model, tokens, 1 if squares else None)
    predicted = tokens.shape[1] - 1
    of_all = {}
    fisher = {}
    with block_gradients(model, embeddings=channels) as parameters:
        for batch in tqdm(batches, desc=progress, unit="batch", disable=progress is None):
            backward(model, batch, precision, over=predicted * (1 if squares else len(tokens)))
            for p in parameters if squares else ():  # the gradient of this window alone
                g = p.grad.float()  # squares of small gradients are 0 in float16
                of_all[p] = of_all.get(p, 0) + g / len(tokens)
                fisher[p] = fisher.get(p, 0) + g.square() / len(tokens)
                p.grad = None
        of_all = of_all or {p: p.grad for p in parameters}
    found = {}
    for p, g in of_all.items():
        if not g.isfinite().all():
            raise UserError(
                "calibration gradients hold NaN or infinity; use a wider dtype such as float32"
            )
        if not squares:
            found[p] = p * g
        else:
            found[p] = (
                p * fisher[p] * p if criterion == "element2" else p * g - p * fisher[p] * p / 2
            )
    return found


def unit_scores(
    parts: Sublayers,
    salience: dict[nn.Parameter, torch.Tensor],
    criterion: str,
    aggregation: str = "sum",
    credit: str = "contiguous",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the key-value heads `[K]`, with the query heads that read them, and of the neurons
    `[m]` of a block.

    Args:
        salience: as from `saliences`.
        aggregation: of a group's matrices, `sum`, `prod`, `max` or the `last` alone.
        credit: which query heads count for key-value head k: those that read it (`contiguous`), or
            as in the official code k, k + K, k + 2K, ... (`strided`).
    """
    queries = [
        _along(salience[parts.query.weight], 0, criterion),
        _along(salience[parts.out.weight], 1, criterion),
    ]
    groups = parts.kv_heads
    repeats = parts.heads // parts.kv_heads
    shape, dim = (
        ((groups, repeats, -1), 1) if credit == "contiguous" else ((repeats, groups, -1), 0)
    )
    query, out = (vector.view(shape).sum(dim).flatten() for vector in queries)
    keys = [_along(salience[linear.weight], 0, criterion) for linear in (parts.key, parts.value)]
    heads = _aggregate([query, *keys, out], aggregation).view(groups, -1).sum(1)
    first = [_along(salience[linear.weight], 0, criterion) for linear in parts.first]
    return heads, _aggregate(
        [*first, _along(salience[parts.last.weight], 1, criterion)], aggregation
    )


def channel_scores(
    model, salience: dict[nn.Parameter, torch.Tensor], criterion: str, aggregation: str = "sum"
) -> torch.Tensor:
    """Scores of the hidden channels of the whole model `[d]`: embedding, norms, every projection
    that reads or writes them, and a head that is not tied to the embedding. A product of that many
    is given as its logarithm."""
    embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    inside = [sublayers(block.module) for block in find_blocks(model)]
    readers = [x for parts in inside for x in (parts.query, parts.key, parts.value, *parts.first)]
    writers = [x for parts in inside for x in (parts.out, parts.last)]
    readers += [embedding, *([] if head.weight is embedding.weight else [head])]
    members = [salience[norm.weight].abs() for norm in norms(model)]
    members += [_along(salience[x.weight], 1, criterion) for x in readers]
    members += [_along(salience[x.weight], 0, criterion) for x in writers]
    if aggregation == "prod":
        return _aggregate([member.double().log() for member in members], "sum")
    return _aggregate(members, aggregation)


def _along(salience: torch.Tensor, dim: int, criterion: str) -> torch.Tensor:
    """A matrix's part in the score of each of its rows (0) or columns (1): signs cancel in `vector`
    alone."""
    other = 1 - dim
    salience = salience.float()  # sums of bfloat16 would be equal too often
    return salience.sum(other).abs() if criterion == "vector" else salience.abs().sum(other)


def _aggregate(members: Sequence[torch.Tensor], aggregation: str) -> torch.Tensor:
    stacked = torch.stack([member.double() for member in members])
    if aggregation == "last":
        return stacked[-1]
    return stacked.amax(0) if aggregation == "max" else getattr(stacked, aggregation)(0)

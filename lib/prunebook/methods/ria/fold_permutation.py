"""Fold channel orders into a Llama-like model: weights move, the function stays, and n:m then holds
as stored.

Three kinds of order leave the function alone. The intermediate channels of an MLP: rows of gate and
up, columns of down. The channels of a value head: rows of v, columns of o, one order for all query
heads that share it. The residual stream: one order for the whole model, in embeddings, norms,
everything that reads it and all that writes it.
"""

from collections.abc import Callable, Iterator, Mapping

import torch

from ...errors import UserError
from ...kernels.score import Score
from ...models.anatomy import Block, find_blocks, weight_of
from ...passes.sequential import walk
from ...passes.statistics import InputNorm
from ...sparsity.patterns import NofM, check_width
from .permutation import best_order

# Root-mean-square norms, no bias in the norms, rotary positions: nothing knows the place of a
# channel.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_READERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
ScoreFunction = Callable[[torch.Tensor, torch.Tensor], Score]


@torch.no_grad()
def fold_permutations(
    model,
    calibration: torch.Tensor,
    score: ScoreFunction,
    pattern: NofM,
    *,
    precision: str = "exact",
    progress: str | None = None,
    device=None,
) -> None:
    """Reorder the channels of the dense model in place so that n:m retains more of the score; same
    function.

    Args:
        calibration: int64 `[n, length]`.
        score: `(weight [out, in], norm [in])` -> `Score`, with the norms of the
            dense model's activations.
        precision, progress, device: as for `blocks.walk`.

    Raises:
        UserError: another architecture, or n:m does not divide a head.
    """
    family = getattr(model.config, "model_type", None)
    if family not in FAMILIES:
        raise UserError(
            f"permutations cannot be folded into a {family!r} model; use {', '.join(FAMILIES)}"
        )
    kv_heads = model.config.num_key_value_heads
    blocks = find_blocks(model)
    check_width(_of(blocks[0], "v_proj").weight.shape[0] // kv_heads, pattern, "a value head")
    norms = {}
    for block in walk(model, calibration, precision=precision, progress=progress, device=device):
        norms |= {
            name: seen.norm() for name, seen in block.collect(InputNorm, propagate=True).items()
        }
    for block in blocks:
        _fold_mlp(block, norms, score, pattern)
        _fold_values(block, norms, score, pattern, kv_heads)
    _fold_residual(model, blocks, norms, score, pattern)


def _of(block: Block, ending: str):
    """The linear of the block whose name ends so."""
    return next(linear for name, linear in block.linears.items() if name.endswith(ending))


def _scores(
    block: Block, norms: Mapping, score: ScoreFunction, endings: tuple[str, ...]
) -> Iterator[torch.Tensor]:
    for name, linear in block.linears.items():
        if name.endswith(endings):
            yield score(weight_of(linear), norms[name].to(linear.weight.device)).dense()


def _permute_rows(linear, order: torch.Tensor) -> None:
    order = order.to(linear.weight.device)
    linear.weight.copy_(linear.weight[order])
    if linear.bias is not None:
        linear.bias.copy_(linear.bias[order])


def _permute_columns(parameter: torch.Tensor, order: torch.Tensor) -> None:
    """The last dimension: columns of a weight, entries of a norm."""
    parameter.copy_(parameter[..., order.to(parameter.device)])


def _fold_mlp(block: Block, norms: Mapping, score: ScoreFunction, pattern: NofM) -> None:
    order = best_order(list(_scores(block, norms, score, ("down_proj",))), pattern)
    _permute_columns(_of(block, "down_proj").weight, order)
    for ending in ("gate_proj", "up_proj"):
        _permute_rows(_of(block, ending), order)


def _fold_values(
    block: Block, norms: Mapping, score: ScoreFunction, pattern: NofM, kv_heads: int
) -> None:
    value = _of(block, "v_proj")
    output = _of(block, "o_proj")
    head = value.weight.shape[0] // kv_heads
    (scores,) = _scores(block, norms, score, ("o_proj",))
    # query heads stand beside those they share values with
    by_head = scores.view(len(scores), kv_heads, -1, head)
    orders = torch.stack(
        [best_order([by_head[:, h].reshape(-1, head)], pattern) for h in range(kv_heads)]
    )
    first = torch.arange(kv_heads)[:, None] * head
    _permute_rows(value, (first + orders).flatten())
    queries = by_head.shape[2]
    of_queries = (
        orders.repeat_interleave(queries, 0) + torch.arange(kv_heads * queries)[:, None] * head
    )
    _permute_columns(output.weight, of_queries.flatten())


class _Readers:
    """The scores of every linear that reads the residual stream, computed anew at each iteration:
    all of them at once would take as much memory as the model."""

    def __init__(self, *arguments):
        self.blocks, *self.rest = arguments

    def __iter__(self) -> Iterator[torch.Tensor]:
        for block in self.blocks:
            yield from _scores(block, *self.rest, _READERS)


def _fold_residual(
    model, blocks: list[Block], norms: Mapping, score: ScoreFunction, pattern: NofM
) -> None:
    order = best_order(_Readers(blocks, norms, score), pattern)
    for block in blocks:
        for ending in _READERS:
            _permute_columns(_of(block, ending).weight, order)
        for ending in ("o_proj", "down_proj"):
            _permute_rows(_of(block, ending), order)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") and not name.endswith(("q_norm.weight", "k_norm.weight")):
            _permute_columns(parameter, order)
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    _permute_columns(embedding, order)
    if head is not embedding:
        _permute_columns(head, order)

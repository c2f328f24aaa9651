"""Fold channel orders into a Llama-like model, so that n:m holds as stored.

Zhang et al., Plug-and-Play (RIA, ICLR 2024); the official code simulates orders and moves no
weight. Weights move here, and the function stays. Three kinds of order leave it alone:

- The intermediate channels of an MLP: rows of gate and up, columns of down.
- The channels of a value head: rows of v, columns of o, with one order for all query heads that
  share it.
- The residual stream: one order for the whole model, in embeddings, norms, everything that reads
  the stream and all that writes it.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from ...errors import UserError
from ...kernels.score import Score
from ...models.anatomy import Block, find_blocks, weight_of
from ...passes.sequential import walk
from ...passes.statistics import InputNorm
from ...sparsity.patterns import NofM, check_width
from .permutation import best_order

# In these families nothing depends on the place of a channel: norms are root-mean-square without a
# bias, and positions are rotary.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
# The linears of a block that read the residual stream, and those that write it.
_READERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_WRITERS = ("o_proj", "down_proj")
ScoreFunction = Callable[[torch.Tensor, torch.Tensor], Score]


@torch.no_grad()
def fold_permutations(
    model: PreTrainedModel,
    calibration: torch.Tensor,
    score: ScoreFunction,
    pattern: NofM,
    *,
    precision: str = "exact",
    progress: str | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Reorder the channels of the dense model in place, so that n:m retains more of the score.

    Args:
        model: a dense model of one of `FAMILIES`.
        calibration: int64 `[n, length]`.
        score: `(weight [out, in], norm [in])` -> `Score`, with the norms of the dense model's
            activations.
        pattern: n:m.
        precision: as for `walk`, like `progress` and `device`.
        progress: label of a progress bar; None for no bar.
        device: where blocks compute, one at a time; None for where the model is.

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
    head_dim = _linear(blocks[0], "v_proj").weight.shape[0] // kv_heads
    check_width(head_dim, pattern, "a value head")
    # ||X_j||_2 of every linear of the dense model
    norms = {}
    for block in walk(model, calibration, precision=precision, progress=progress, device=device):
        for name, statistic in block.collect(InputNorm, propagate=True).items():
            norms[name] = statistic.norm()
    # Orders inside a block first; the residual stream is ordered by what its readers then score.
    for block in blocks:
        _fold_mlp(block, norms, score, pattern)
        _fold_values(block, norms, score, pattern, kv_heads)
    _fold_residual(model, blocks, norms, score, pattern)


def _linear(block: Block, ending: str) -> nn.Module:
    """The linear of a block whose name has this ending."""
    return next(linear for name, linear in block.linears.items() if name.endswith(ending))


def _scores(
    block: Block,
    norms: Mapping[str, torch.Tensor],
    score: ScoreFunction,
    endings: tuple[str, ...],
) -> Iterator[torch.Tensor]:
    """The dense scores `[out, in]` of the linears of a block whose names have these endings."""
    for name, linear in block.linears.items():
        if name.endswith(endings):
            yield score(weight_of(linear), norms[name].to(linear.weight.device)).dense()


def _permute_rows(linear: nn.Module, order: torch.Tensor) -> None:
    """Reorder the outputs of a linear in place: rows of its weight, entries of its bias."""
    order = order.to(linear.weight.device)
    linear.weight.copy_(linear.weight[order])
    if linear.bias is not None:
        linear.bias.copy_(linear.bias[order])


def _permute_columns(parameter: torch.Tensor, order: torch.Tensor) -> None:
    """Reorder the last dimension in place: columns of a weight, entries of a norm."""
    parameter.copy_(parameter[..., order.to(parameter.device)])


def _fold_mlp(
    block: Block, norms: Mapping[str, torch.Tensor], score: ScoreFunction, pattern: NofM
) -> None:
    """Order the intermediate channels of an MLP by the score of down, which reads them."""
    order = best_order(list(_scores(block, norms, score, ("down_proj",))), pattern)
    _permute_columns(_linear(block, "down_proj").weight, order)
    for ending in ("gate_proj", "up_proj"):
        _permute_rows(_linear(block, ending), order)


def _fold_values(
    block: Block,
    norms: Mapping[str, torch.Tensor],
    score: ScoreFunction,
    pattern: NofM,
    kv_heads: int,
) -> None:
    """Order the channels of each value head by the score of o, which reads them."""
    value = _linear(block, "v_proj")
    output = _linear(block, "o_proj")
    head_dim = value.weight.shape[0] // kv_heads
    (scores,) = _scores(block, norms, score, ("o_proj",))
    # [out, kv heads, queries a kv head, head_dim]: the queries that share values are neighbours.
    by_head = scores.view(len(scores), kv_heads, -1, head_dim)
    orders = torch.stack(
        [best_order([by_head[:, h].reshape(-1, head_dim)], pattern) for h in range(kv_heads)]
    )
    # An order inside a head, as rows of v: the head's first row is added.
    first_row = torch.arange(kv_heads)[:, None] * head_dim
    _permute_rows(value, (first_row + orders).flatten())
    # The same order for every query head that reads these values, as columns of o.
    queries = by_head.shape[2]
    first_column = torch.arange(kv_heads * queries)[:, None] * head_dim
    _permute_columns(output.weight, (orders.repeat_interleave(queries, 0) + first_column).flatten())


class _ReaderScores:
    """The scores of every linear that reads the residual stream, computed anew at each iteration.

    All of them at once would take as much memory as the model.
    """

    def __init__(
        self, blocks: list[Block], norms: Mapping[str, torch.Tensor], score: ScoreFunction
    ):
        self._blocks = blocks
        self._norms = norms
        self._score = score

    def __iter__(self) -> Iterator[torch.Tensor]:
        for block in self._blocks:
            yield from _scores(block, self._norms, self._score, _READERS)


def _fold_residual(
    model: PreTrainedModel,
    blocks: list[Block],
    norms: Mapping[str, torch.Tensor],
    score: ScoreFunction,
    pattern: NofM,
) -> None:
    """Order the channels of the residual stream by the scores of all linears that read it."""
    order = best_order(_ReaderScores(blocks, norms, score), pattern)
    for block in blocks:
        for ending in _READERS:
            _permute_columns(_linear(block, ending).weight, order)
        for ending in _WRITERS:
            _permute_rows(_linear(block, ending), order)
    # Norms of queries and keys act inside a head, not on the stream.
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") and not name.endswith(("q_norm.weight", "k_norm.weight")):
            _permute_columns(parameter, order)
    # The embedding writes the stream and the head reads it; tied, they are one matrix.
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    _permute_columns(embedding, order)
    if head is not embedding:
        _permute_columns(head, order)

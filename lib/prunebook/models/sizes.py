"""How many units a sparsity or a shape removes from a model, and which shapes it can take."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import UserError
from .anatomy import Sublayers, check_heads, find_stack, sublayers
from .channels import check_channels, check_narrowable, count_heads, one_block
from .config import WIDTHS

# What a shape gives sizes of, for a model whose blocks are alike.
AXES = ("neurons", "heads", "hidden", "blocks")

# Added before a product of floats is rounded down, so that e.g. 0.3 of 10 are 3.
_ROUNDING = 1e-9


def block_parameters(model: PreTrainedModel) -> int:
    """Parameters inside the decoder blocks, norms and biases included."""
    _, stack = find_stack(model)
    return sum(parameter.numel() for parameter in stack.parameters())


def blocks_to_remove(
    total: int, remove_blocks: int | None, sparsity: float | None, most: int
) -> int:
    """How many blocks a method removes.

    Args:
        total: number of blocks of the model.
        remove_blocks: the number to remove; None for a fraction.
        sparsity: fraction of the blocks, rounded down.
        most: largest number that can go.

    Raises:
        UserError: none, or more than `most`; the nearest possible is named.
    """
    count = remove_blocks
    if remove_blocks is None:
        count = int(total * sparsity + _ROUNDING)
    if count < 1:
        raise UserError(
            f"sparsity {sparsity} is less than one of {total} blocks; the nearest is "
            "remove_blocks=1"
        )
    if count > most:
        raise UserError(f"{count} of {total} blocks cannot go; the nearest is remove_blocks={most}")
    return count


def count_channels(config: PreTrainedConfig, sparsity: float) -> int:
    """How many hidden channels stay when the fraction `sparsity` goes, to the nearest multiple of
    the heads.

    Raises:
        UserError: all of them, or none; the nearest possible is named.
    """
    width = config.hidden_size
    heads = config.num_attention_heads
    kept = round(width * (1 - sparsity) / heads) * heads
    if not 0 < kept < width:
        nearest = heads / width
        if not kept:
            nearest = 1 - heads / width
        raise UserError(
            f"sparsity {sparsity} of {width} hidden channels, {heads} at a time: the nearest is "
            f"{nearest:.4f}"
        )
    return kept


def units_of_ratio(blocks: Sequence[nn.Module], ratio: float) -> tuple[int, int]:
    """How many key-value heads and neurons go from each block at a fraction of both.

    Rows that stay are rounded down, and then the heads that go. The official code of LLM-Pruner
    rounds alike, but for 1e-9 that is added to the rows here, so that 0.9 takes 9 of 10 neurons;
    without it the binary product takes 10.

    Args:
        blocks: blocks that are alike.
        ratio: fraction of the heads and of the neurons.

    Raises:
        UserError: no blocks, less than one unit, or all of them.
    """
    parts = _alike(blocks)
    rows = parts.kv_heads * parts.head_dim
    heads = (rows - int(rows * (1 - ratio) + _ROUNDING)) // parts.head_dim
    neurons = parts.neurons - int(parts.neurons * (1 - ratio) + _ROUNDING)
    if not heads + neurons or heads == parts.kv_heads or neurons == parts.neurons:
        raise UserError(
            f"ratio {ratio} of {parts.kv_heads} key-value heads and {parts.neurons} neurons takes "
            f"{heads} and {neurons}; the nearest that takes some and leaves some are "
            f"{1 / parts.neurons:.2g} to {min(1 - 1 / parts.neurons, 1 - 1 / rows) - 0.001:.3f}"
        )
    return heads, neurons


def units_of_sparsity(
    model: PreTrainedModel, blocks: Sequence[nn.Module], sparsity: float, heads: bool = True
) -> tuple[int, int]:
    """How many key-value heads and neurons each block loses at a fraction of all blocks' size.

    The same fraction of both goes, heads rounded down and neurons so that the sum is met to the
    nearest.

    Args:
        model: the whole model.
        blocks: the blocks that lose units; they are alike.
        sparsity: fraction of the parameters of all blocks of the model.
        heads: whether heads go, too; False takes neurons only.

    Raises:
        UserError: no blocks, or more or less than they can give; the nearest possible is named.
    """
    parts = _alike(blocks)
    of_head, of_neuron = parts.group_sizes()
    # Parameters that each block loses, and the share that they are of its heads and neurons.
    total = block_parameters(model) / len(blocks)
    need = sparsity * total
    share = need / (parts.kv_heads * of_head + parts.neurons * of_neuron)
    # One head and one neuron of each block stay.
    most_heads = 0
    if heads:
        most_heads = parts.kv_heads - 1
    most_of_neurons = (parts.neurons - 1) * of_neuron
    # At least so many heads go that neurons can make up the rest.
    least_heads = math.ceil((need - most_of_neurons - of_neuron / 2) / of_head)
    lost_heads = min(max(int(share * parts.kv_heads + _ROUNDING), least_heads), most_heads)
    lost_neurons = round((need - lost_heads * of_head) / of_neuron)
    if lost_heads + lost_neurons and 0 <= lost_neurons < parts.neurons:
        return lost_heads, lost_neurons
    # The cuts next to what was asked for: the least of all, the most of all, the heads alone, and
    # one head less with the most neurons.
    possible = (
        of_neuron,
        most_heads * of_head + most_of_neurons,
        lost_heads * of_head or of_neuron,
        max(lost_heads - 1, 0) * of_head + most_of_neurons,
    )
    nearest = min(possible, key=lambda size: abs(size - need))
    # The least is rounded up and all others down, so that the number named can be met.
    rounding = {of_neuron: math.ceil}.get(nearest, math.floor)
    units = {True: "heads and neurons", False: "neurons"}[heads]
    raise UserError(
        f"sparsity {sparsity} cannot be met by {units} of {len(blocks)} blocks, of which one each "
        f"stays; the nearest is {rounding(nearest / total * 1e4) / 1e4:.4f}"
    )


def _alike(blocks: Sequence[nn.Module]) -> Sublayers:
    """The sublayers of the first of some blocks that have equal numbers of heads and neurons."""
    if not len(blocks):
        raise UserError("all blocks are spared; spare fewer")
    parts = [sublayers(block) for block in blocks]
    if len({(part.heads, part.kv_heads, part.neurons) for part in parts}) > 1:
        raise UserError("the blocks differ in heads or neurons; trim only blocks that are alike")
    return parts[0]


def top_k(scores: torch.Tensor, count: int) -> list[int]:
    """The `count` units of highest score in ascending order; of equal ones the lowest index goes
    first."""
    return sorted(scores.sort(stable=True).indices[len(scores) - count :].tolist())


def check_sizes(model: PreTrainedModel, sizes: Mapping[str, int]) -> None:
    """Raise a `UserError` unless `sizes` of some `AXES` can be what stays of the model, all blocks
    alike."""
    stack = find_stack(model)[1]
    width = model.config.hidden_size
    parts = sublayers(stack[0])
    if {"neurons", "heads"} & set(sizes):
        parts = _alike(stack)
    present = {
        "neurons": parts.neurons,
        "heads": parts.heads,
        "hidden": width,
        "blocks": len(stack),
    }
    for axis, size in sizes.items():
        most = present[axis]
        if not 1 <= size <= most:
            raise UserError(f"{axis} {size} of {most} cannot stay; use 1 to {most}")
    if (heads := sizes.get("heads")) and heads % parts.kv_heads:
        nearest = max(1, round(heads / parts.kv_heads)) * parts.kv_heads
        raise UserError(
            f"heads {heads} do not divide among {parts.kv_heads} key-value heads; nearest: "
            f"{nearest}"
        )
    if "heads" in sizes:
        check_heads(parts)
    if "hidden" in sizes:
        check_narrowable(model)
    if {"hidden", "heads"} & set(sizes):
        check_channels(sizes.get("hidden", width), sizes.get("heads", count_heads(model)))


def candidates(
    model: PreTrainedModel,
    sparsity: float,
    axes: Mapping[str, Sequence[int]],
    tolerance: float = 0.05,
) -> list[dict]:
    """The shapes that lose the fraction `sparsity` of the block parameters.

    Args:
        model: the whole model; it stays as it is.
        sparsity: fraction of the block parameters.
        axes: sizes to try of `neurons`, `heads`, `hidden` and `blocks`; what is not named stays.
        tolerance: allowed deviation, as a fraction of what is left.

    Returns:
        Shapes by axis, which are the options `keep_<axis>` of `methods.Minitron`, with their share
        of block parameters `gone`, closest first.

    Raises:
        UserError: an axis that does not exist, a shape that `methods.Minitron` does not take, or
            one that the architecture's configuration cannot say.
    """
    if unknown := set(axes) - set(AXES):
        raise UserError(f"axes {', '.join(sorted(unknown))} are unknown; use {', '.join(AXES)}")
    total = block_parameters(model)
    shapes = []
    for sizes in itertools.product(*axes.values()):
        shape = dict(zip(axes, sizes, strict=True))
        check_sizes(model, shape)
        gone = 1 - _parameters_of(model, shape) / total
        if abs(gone - sparsity) <= tolerance * (1 - sparsity):
            shapes.append(shape | {"gone": gone})
    return sorted(shapes, key=lambda shape: abs(shape["gone"] - sparsity))


def _parameters_of(model: PreTrainedModel, shape: Mapping[str, int]) -> int:
    """Block parameters of a model like this one, but of that shape: those of one block, built
    without memory, times blocks."""
    fields = {"heads": "num_attention_heads", "hidden": "hidden_size"}
    fields["neurons"] = "intermediate_size"
    if hasattr(model.config, "ffn_dim"):
        fields["neurons"] = "ffn_dim"
    small = one_block(model, {fields[axis]: shape[axis] for axis in fields.keys() & shape.keys()})
    _, stack = find_stack(model)
    _, small_stack = find_stack(small)
    same_heads = sublayers(small_stack[0]).head_dim == sublayers(stack[0]).head_dim
    if hasattr(model.config, WIDTHS) or not same_heads:
        raise UserError(
            f"the configuration of {type(model).__name__} cannot say {dict(shape)} of this model"
        )
    return block_parameters(small) * shape.get("blocks", len(stack))

"""How many units a sparsity or a shape removes from a model, and which shapes it can take."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..errors import UserError
from .anatomy import Sublayers, all_sublayers, check_heads, find_stack, norms, sublayers
from .config import WIDTHS

AXES = ("neurons", "heads", "hidden", "blocks")  # of a model whose blocks are alike


def block_parameters(model: nn.Module) -> int:
    """Parameters inside the decoder blocks, norms and biases included."""
    _, stack = find_stack(model)
    return sum(parameter.numel() for parameter in stack.parameters())


def count_blocks(total: int, blocks: int | None, sparsity: float | None, most: int) -> int:
    """How many of `total` blocks go: `blocks`, or the fraction `sparsity` of them, rounded down.

    Raises:
        UserError: none, or more than `most`; the nearest possible is named.
    """
    count = blocks if blocks is not None else int(total * sparsity + 1e-9)
    if count < 1:
        raise UserError(
            f"sparsity {sparsity} is less than one of {total} blocks; the nearest is blocks=1"
        )
    if count > most:
        raise UserError(f"{count} of {total} blocks cannot go; the nearest is blocks={most}")
    return count


def units_of_ratio(blocks: Sequence[nn.Module], ratio: float) -> tuple[int, int]:
    """How many key-value heads and neurons go from each of the `blocks` (alike) at a fraction
    `ratio`, rounded as in the official code of LLM-Pruner: rows that stay are rounded down, and the
    heads that go then are too.

    Raises:
        UserError: no blocks, less than one unit, or all of them.
    """
    parts = _first(blocks)
    rows = parts.kv_heads * parts.head_dim
    heads = (rows - int(rows * (1 - ratio) + 1e-9)) // parts.head_dim
    neurons = parts.neurons - int(parts.neurons * (1 - ratio) + 1e-9)
    if not heads + neurons or heads == parts.kv_heads or neurons == parts.neurons:
        raise UserError(
            f"ratio {ratio} of {parts.kv_heads} key-value heads and {parts.neurons} neurons takes "
            f"{heads} and {neurons}; the nearest that takes some and leaves some are "
            f"{1 / parts.neurons:.2g} to {min(1 - 1 / parts.neurons, 1 - 1 / rows) - 0.001:.3f}"
        )
    return heads, neurons


def units_of_sparsity(
    model: nn.Module, blocks: Sequence[nn.Module], sparsity: float, heads: bool = True
) -> tuple[int, int]:
    """How many key-value heads and neurons go from each of the `blocks` (alike), so that the
    fraction `sparsity` of the parameters of all blocks of the model goes: the same fraction of
    both, heads rounded down (none without `heads`) and neurons so that the sum is met to the
    nearest.

    Raises:
        UserError: no blocks, or more or less than they can give; the nearest possible is named.
    """
    parts = _first(blocks)
    total = block_parameters(model) / len(blocks)
    of_head, of_neuron = parts.group_sizes()
    need = sparsity * total
    share = need / (parts.kv_heads * of_head + parts.neurons * of_neuron)
    spare = parts.kv_heads - 1 if heads else 0
    neurons_most = (parts.neurons - 1) * of_neuron
    # heads that neurons cannot make up for
    least = math.ceil((need - neurons_most - of_neuron / 2) / of_head)
    gone = min(max(int(share * parts.kv_heads + 1e-9), least), spare)
    neurons = round((need - gone * of_head) / of_neuron)
    if not gone + neurons or not 0 <= neurons < parts.neurons:
        possible = (
            of_neuron,
            spare * of_head + neurons_most,
            gone * of_head or of_neuron,
            max(gone - 1, 0) * of_head + neurons_most,
        )
        nearest = min(possible, key=lambda size: abs(size - need))
        rounded = (math.ceil if nearest == of_neuron else math.floor)(nearest / total * 1e4) / 1e4
        raise UserError(
            f"sparsity {sparsity} cannot be met by {'heads and ' * heads}neurons of {len(blocks)} "
            f"blocks, of which one each stays; the nearest is {rounded:.4f}"
        )
    return gone, neurons


def _first(blocks: Sequence[nn.Module]) -> Sublayers:
    if not len(blocks):
        raise UserError("all blocks are spared; spare fewer")
    parts = [sublayers(block) for block in blocks]
    if len({(part.heads, part.kv_heads, part.neurons) for part in parts}) > 1:
        raise UserError("the blocks differ in heads or neurons; trim only blocks that are alike")
    return parts[0]


def top_k(scores: torch.Tensor, left: int) -> list[int]:
    """The `left` units of highest score in ascending order; of equal ones the lowest index goes
    first."""
    return sorted(scores.sort(stable=True).indices[len(scores) - left :].tolist())


def count_channels(config, sparsity: float) -> int:
    """How many hidden channels stay when the fraction `sparsity` goes, to the nearest multiple of
    the heads.

    Raises:
        UserError: all of them, or none; the nearest possible is named.
    """
    width = config.hidden_size
    heads = config.num_attention_heads
    left = round(width * (1 - sparsity) / heads) * heads
    if not 0 < left < width:
        nearest = heads / width if left else 1 - heads / width
        raise UserError(
            f"sparsity {sparsity} of {width} hidden channels, {heads} at a time: the nearest is "
            f"{nearest:.4f}"
        )
    return left


def candidates(
    model, sparsity: float, axes: Mapping[str, Sequence[int]], tolerance: float = 0.05
) -> list[dict]:
    """The shapes that lose the fraction `sparsity` of the block parameters, within `tolerance` of
    what is left.

    Args:
        axes: sizes to try of `neurons`, `heads`, `hidden` and `blocks`; what is not named stays.

    Returns:
        Shapes, as options of `methods.Minitron`, with their share of block parameters `gone`,
        closest first.

    Raises:
        UserError: an axis that is none, a shape that `methods.Minitron` does not take, or one that
            the architecture's configuration cannot say.
    """
    if unknown := set(axes) - set(AXES):
        raise UserError(f"axes {', '.join(sorted(unknown))} are unknown; use {', '.join(AXES)}")
    total = block_parameters(model)
    found = []
    for sizes in itertools.product(*axes.values()):
        shape = dict(zip(axes, sizes, strict=True))
        check_sizes(model, shape)
        gone = 1 - _parameters_of(model, shape) / total
        if abs(gone - sparsity) <= tolerance * (1 - sparsity):
            found.append(shape | {"gone": gone})
    return sorted(found, key=lambda shape: abs(shape["gone"] - sparsity))


def check_sizes(model: nn.Module, sizes: Mapping[str, int]) -> None:
    """Raise a `UserError` unless `sizes` of some `AXES` can be what stays of the model, all blocks
    alike."""
    stack = find_stack(model)[1]
    config = model.config
    parts = _first(stack) if {"neurons", "heads"} & set(sizes) else sublayers(stack[0])
    has = {
        "neurons": parts.neurons,
        "heads": parts.heads,
        "hidden": config.hidden_size,
        "blocks": len(stack),
    }
    for axis, size in sizes.items():
        if not 1 <= size <= has[axis]:
            raise UserError(f"{axis} {size} of {has[axis]} cannot stay; use 1 to {has[axis]}")
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
        check_channels(
            sizes.get("hidden", config.hidden_size), sizes.get("heads", count_heads(model))
        )


def _parameters_of(model: nn.Module, shape: Mapping[str, int]) -> int:
    """Block parameters of a model like this one, but of that shape: those of one block without
    memory, times blocks."""
    fields = {
        "neurons": "ffn_dim" if hasattr(model.config, "ffn_dim") else "intermediate_size",
        "heads": "num_attention_heads",
        "hidden": "hidden_size",
    }
    small = _one_block(model, {fields[axis]: shape[axis] for axis in fields.keys() & shape.keys()})
    _, stack = find_stack(model)
    if (
        hasattr(model.config, WIDTHS)
        or sublayers(find_stack(small)[1][0]).head_dim != sublayers(stack[0]).head_dim
    ):
        raise UserError(
            f"the configuration of {type(model).__name__} cannot say {dict(shape)} of this model"
        )
    return block_parameters(small) * shape.get("blocks", len(stack))


def _one_block(model: nn.Module, fields: Mapping[str, int]) -> nn.Module:
    """A fresh model of one block without memory, of the same configuration but for some fields."""
    config = copy.deepcopy(model.config)
    for name, value in fields.items():
        setattr(config, name, value)
    config.num_hidden_layers = 1
    with torch.device("meta"):
        return type(model)(config)


def check_narrowable(model: nn.Module) -> None:
    config = model.config
    embedding = model.get_input_embeddings()
    if getattr(config, "head_dim", None) is None or embedding.embedding_dim != config.hidden_size:
        raise UserError(
            f"{type(model).__name__} cannot lose hidden channels: its configuration has no head_dim"
        )
    # Gemma's is the root of the width: once reloaded, it would be another
    if hasattr(embedding, "embed_scale"):
        raise UserError(
            f"{type(model).__name__} cannot lose hidden channels: their number scales its "
            "embeddings"
        )
    if not norms(model):  # OLMo's know their width from the configuration alone
        raise UserError(
            f"{type(model).__name__} cannot lose hidden channels: its norms have no weights to cut"
        )
    narrower = config.hidden_size - config.num_attention_heads
    if narrower > 0 and _attention_of(model, narrower) != _attention_of(model, config.hidden_size):
        raise UserError(
            f"{type(model).__name__} cannot lose hidden channels: the size of its heads follows "
            "from them"
        )


def _attention_of(model: nn.Module, hidden: int) -> tuple:
    """What the configuration makes of attention at so many hidden channels: sizes, all but theirs,
    and the scale."""
    parts = sublayers(find_stack(_one_block(model, {"hidden_size": hidden}))[1][0])
    sizes = parts.head_dim, parts.query.out_features, parts.key.out_features, parts.out.in_features
    linears = {parts.query, parts.key, parts.value, parts.out}
    others = [
        x.shape
        for m in parts.attention.modules()
        if m not in linears
        for x in m.parameters(recurse=False)
    ]
    return sizes, others, getattr(parts.attention, "scaling", None)


def count_heads(model: nn.Module) -> int:
    """Query heads of a block; where blocks differ, those that the configuration goes by."""
    counts = {parts.heads for parts in all_sublayers(model)}
    return counts.pop() if len(counts) == 1 else model.config.num_attention_heads


def check_channels(count: int, heads: int) -> None:
    """Raise a `UserError` unless `count` hidden channels are a multiple of the heads, which
    configurations ask for."""
    if count % heads:
        nearest = max(1, round(count / heads)) * heads
        raise UserError(
            f"{count} hidden channels do not divide among {heads} heads, which the configuration "
            f"asks for; the nearest is {nearest}"
        )

"""Cut structures out of a model for good: heads, neurons, hidden channels and whole blocks.

What depends on each other goes together (Fang et al., DepGraph, arXiv 2301.12900), and the configuration is
brought in step, so that the result can be saved and reloaded."""

import copy
from collections.abc import Iterable, Sequence

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from ..errors import UserError
from .anatomy import Sublayers, all_sublayers, check_heads, find_stack, norms
from .config import WIDTHS
from .sizes import check_channels, check_narrowable, count_heads


def remove_blocks(model: nn.Module, indices: Iterable[int]) -> None:
    """Drop whole decoder blocks in place: what entered a removed block now enters the next one that
    is left.

    The configuration and the blocks are renumbered (the key-value cache goes by `layer_idx`), so
    that the result saves as an ordinary folder of the same architecture and generates with a cache.

    Args:
        indices: blocks by number from 0, in any order.

    Raises:
        UserError: a number that is no block, or none would be left.
    """
    _, stack = find_stack(model)
    count = len(stack)
    gone = sorted(set(indices))
    if wrong := [index for index in gone if not 0 <= index < count]:
        raise UserError(f"block {wrong[0]} does not exist; the model has blocks 0 to {count - 1}")
    if len(gone) == count:
        raise UserError(f"removing all {count} blocks leaves no model; leave at least one")
    left = [index for index in range(count) if index not in gone]
    for index in reversed(gone):
        del stack[index]
    model.config.num_hidden_layers = len(left)
    for name in ("layer_types", "no_rope_layers"):  # which say something of every block
        if of_blocks := getattr(model.config, name, None):
            setattr(model.config, name, [of_blocks[index] for index in left])
    for number, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    if hasattr(model.config, WIDTHS):
        sync_config(model)


def keep_channels(model: nn.Module, kept: Iterable[int]) -> None:
    """Leave the hidden channels `kept` of the whole model, in place: embeddings, norms, all
    projections and the head (tied ones stay tied).

    Raises:
        UserError: an architecture whose configuration ties the size of heads or a scale to the
            width, channels that do not exist, or a number of them that its configuration does not
            take.
    """
    config = model.config
    embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    check_narrowable(model)
    width = config.hidden_size
    index = sorted(set(kept))
    if not index or index[0] < 0 or index[-1] >= width:
        raise UserError(
            f"hidden channels must be some of 0 to {width - 1}, not {index[:1]}..{index[-1:]}"
        )
    check_channels(len(index), count_heads(model))
    tied = head is not None and head.weight is embedding.weight
    inside = all_sublayers(model)
    readers = [x for parts in inside for x in (parts.query, parts.key, parts.value, *parts.first)]
    writers = [x for parts in inside for x in (parts.out, parts.last)]
    for module in (embedding, *readers, *([] if head is None or tied else [head])):
        module.weight = select_entries(module.weight, 1, index)
    for module in (*writers, *norms(model)):
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, select_entries(parameter, 0, index))
    for linear in (*readers, *writers, *([] if head is None else [head])):
        linear.out_features, linear.in_features = linear.weight.shape
    if tied:
        head.weight = embedding.weight
        head.out_features, head.in_features = head.weight.shape
    embedding.embedding_dim = config.hidden_size = len(index)
    sync_config(model)


def keep_neurons(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave the MLP neurons `kept`, in ascending order, in place.

    Raises:
        UserError: none are kept, or one does not exist.
    """
    index = _check(kept, parts.neurons, "neuron")
    for linear in parts.first:
        _take(linear, 0, index)
    _take(parts.last, 1, index)


def keep_heads(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave the query heads `kept`, in ascending order, in place, with the key-value heads that
    they read.

    Raises:
        UserError: none are kept, one does not exist, key-value heads would be read by unequal
            numbers of them, or attention holds weights of all heads (see `check_heads`).
    """
    index = _check(kept, parts.heads, "head")
    repeats = parts.repeats
    if len(index) < parts.heads:
        check_heads(parts)
    readers = [sum(head // repeats == group for head in index) for group in range(parts.kv_heads)]
    if len(set(readers) - {0}) != 1:
        raise UserError(
            f"query heads {index} would leave {readers} of them to the {parts.kv_heads} key-value "
            f"heads; keep the same number of every {repeats} that follow each other, or none"
        )
    queries = _channels(index, parts.head_dim)
    keys = _channels([group for group, count in enumerate(readers) if count], parts.head_dim)
    _take(parts.query, 0, queries)
    _take(parts.key, 0, keys)
    _take(parts.value, 0, keys)
    _take(parts.out, 1, queries)
    _update_head_counts(parts)


def keep_kv_heads(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave the key-value heads `kept` in place, each with all query heads that read it.

    Raises:
        UserError: as `keep_heads`.
    """
    keep_heads(parts, [group * parts.repeats + i for group in kept for i in range(parts.repeats)])


def can_lose_all_heads(parts: Sublayers) -> bool:
    """Whether `remove_heads` works: the output projection must stand outside the module that forms
    heads (BERT)."""
    return parts.out not in set(parts.attention.children())


def remove_heads(parts: Sublayers) -> None:
    """Take all heads of an attention: what it adds is the bias of its output projection.

    Raises:
        UserError: an architecture where that cannot be; a decoder counts positions by its
            attention's cache.
    """
    if not can_lose_all_heads(parts):
        raise UserError(
            f"{type(parts.attention).__name__} cannot lose all its heads; keep at least one"
        )
    for linear in (parts.query, parts.key, parts.value):
        _take(linear, 0, [])
    _take(parts.out, 1, [])
    kind = type(parts.attention)
    if not issubclass(kind, _NoHeads):
        parts.attention.__class__ = type(kind.__name__, (_NoHeads, kind), {})


class _NoHeads:
    """In place of an attention's own forward, which cannot form heads out of nothing."""

    def forward(self, hidden_states: torch.Tensor, *_, **__) -> tuple[torch.Tensor, None]:
        return hidden_states.new_zeros(*hidden_states.shape[:-1], 0), None


def remove_neurons(parts: Sublayers) -> None:
    """Take all neurons of an MLP: what it adds is the bias of its last matrix, if it has one."""
    for linear in parts.first:
        _take(linear, 0, [])
    _take(parts.last, 1, [])


def _update_head_counts(parts: Sublayers) -> None:
    """What attention modules of some architectures remember of their heads."""
    known = {
        "num_heads": parts.heads,
        "num_attention_heads": parts.heads,
        "num_key_value_heads": parts.kv_heads,
        "num_key_value_groups": parts.repeats,
        "all_head_size": parts.heads * parts.head_dim,
    }
    for name, value in known.items():
        if hasattr(parts.attention, name):
            setattr(parts.attention, name, value)


def _check(kept: Iterable[int], count: int, what: str) -> list[int]:
    index = sorted(set(kept))
    if not index:
        raise UserError(
            f"removing all {count} {what}s of a block is not possible; keep at least one"
        )
    if index[0] < 0 or index[-1] >= count:
        wrong = index[0] if index[0] < 0 else index[-1]
        raise UserError(f"{what} {wrong} does not exist; the block has {what}s 0 to {count - 1}")
    return index


def _channels(heads: list[int], head_dim: int) -> list[int]:
    return [head * head_dim + channel for head in heads for channel in range(head_dim)]


def _take(linear: nn.Linear, dim: int, index: list[int]) -> None:
    """Leave rows (`dim` 0, with the bias) or columns (1) of a linear."""
    linear.weight = select_entries(linear.weight, dim, index)
    if dim == 0 and linear.bias is not None:
        linear.bias = select_entries(linear.bias, 0, index)
    linear.out_features, linear.in_features = linear.weight.shape


def select_entries(parameter: nn.Parameter, dim: int, index: Sequence[int]) -> nn.Parameter:
    """A new parameter of the entries `index` along `dim`; nothing else of the old one stays in
    memory."""
    chosen = parameter.detach().index_select(
        dim, torch.tensor(index, dtype=torch.int64, device=parameter.device)
    )
    return nn.Parameter(chosen.contiguous(), requires_grad=parameter.requires_grad)


def sync_config(model: nn.Module) -> bool:
    """Let the configuration say what is left in the blocks, so that the model can be saved.

    The architecture's own fields do where they can (all blocks alike, and a fresh model of that
    configuration has the same shapes); else the counts of every block go under `prunebook_widths`,
    which `load_model` reads.

    Returns:
        Whether plain `transformers` can reload it.
    """
    parts = all_sublayers(model)
    counts = {
        name: [getattr(part, name) for part in parts] for name in ("heads", "kv_heads", "neurons")
    }
    plain = copy.deepcopy(model.config)
    if hasattr(plain, WIDTHS):
        delattr(plain, WIDTHS)
    fields = {
        "num_attention_heads": parts[0].heads,
        "num_key_value_heads": parts[0].kv_heads,
        "head_dim": parts[0].head_dim,
        "intermediate_size": parts[0].neurons,
        "ffn_dim": parts[0].neurons,
    }
    for name, value in fields.items():
        if hasattr(plain, name):
            setattr(plain, name, value)
    if _describes(plain, model):
        model.config.__dict__.clear()  # the blocks hold this very object
        model.config.__dict__.update(plain.__dict__)
        return True
    setattr(model.config, WIDTHS, counts)
    return False


def _describes(config, model: nn.Module) -> bool:
    try:
        config.validate()  # as saving does
        with torch.device("meta"):
            fresh = type(model)(copy.deepcopy(config))
    # e.g. heads that do not divide the width, or none
    except (ValueError, ArithmeticError, StrictDataclassError):
        return False
    shapes = {name: parameter.shape for name, parameter in fresh.named_parameters()}
    return shapes == {name: parameter.shape for name, parameter in model.named_parameters()}


def resize(model: nn.Module) -> None:
    """Bring the blocks of a new model to the widths that its configuration has under
    `prunebook_widths`.

    Raises:
        ValueError: widths that are none of this model.
    """
    widths = getattr(model.config, WIDTHS)
    try:
        counts = [widths[name] for name in ("heads", "kv_heads", "neurons")]
        for parts, heads, kv_heads, neurons in zip(all_sublayers(model), *counts, strict=True):
            if heads == 0:
                remove_heads(parts)
            else:
                left = heads // kv_heads
                keep_heads(
                    parts,
                    [group * parts.repeats + i for group in range(kv_heads) for i in range(left)],
                )
            if neurons == 0:
                remove_neurons(parts)
            else:
                keep_neurons(parts, range(neurons))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{WIDTHS} in config.json does not fit its blocks") from error

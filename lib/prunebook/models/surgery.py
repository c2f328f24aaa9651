"""Cut structures out of a model for good: whole blocks, heads and neurons.

`anatomy` says what depends on each other and goes together. The configuration is brought in step,
so that the result can be saved and reloaded. `sizes` says how many units go, criteria say which;
`channels` cuts what all blocks share.
"""

import copy
from collections.abc import Iterable, Sequence

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import UserError
from .anatomy import Sublayers, all_sublayers, check_heads, find_stack
from .config import WIDTHS
from .entries import members_of, select_columns, select_rows

# Fields of some configurations that hold one entry for each block.
_FIELDS_BY_BLOCK = ("layer_types", "no_rope_layers")


def remove_blocks(model: PreTrainedModel, indices: Iterable[int]) -> None:
    """Drop whole decoder blocks in place: what entered a removed block now enters the next one that
    stays.

    The configuration and the blocks are renumbered (the key-value cache goes by `layer_idx`), so
    that the result saves as an ordinary folder of the same architecture and generates with a cache.

    Args:
        model: a model with recognisable blocks.
        indices: blocks by number from 0, in any order.

    Raises:
        UserError: a number that is no block, or no block would stay.
    """
    _, stack = find_stack(model)
    count = len(stack)
    removed = sorted(set(indices))
    if wrong := [index for index in removed if not 0 <= index < count]:
        raise UserError(f"block {wrong[0]} does not exist; the model has blocks 0 to {count - 1}")
    if len(removed) == count:
        raise UserError(f"removing all {count} blocks leaves no model; leave at least one")
    kept = [index for index in range(count) if index not in removed]
    for index in reversed(removed):
        del stack[index]
    model.config.num_hidden_layers = len(kept)
    for name in _FIELDS_BY_BLOCK:
        if of_blocks := getattr(model.config, name, None):
            setattr(model.config, name, [of_blocks[index] for index in kept])
    for number, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    if hasattr(model.config, WIDTHS):
        sync_config(model)


def keep_neurons(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave only the MLP neurons `kept`, in ascending order, in place.

    Raises:
        UserError: none are kept, or one does not exist.
    """
    index = _checked_index(kept, parts.neurons, "neuron")
    _select_neurons(parts, index)


def remove_neurons(parts: Sublayers) -> None:
    """Take all neurons of an MLP: what it adds is the bias of its last matrix, if it has one."""
    _select_neurons(parts, [])


def _select_neurons(parts: Sublayers, index: Sequence[int]) -> None:
    for linear in parts.first:
        select_rows(linear, index)
    select_columns(parts.last, index)


def keep_heads(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave only the query heads `kept`, in ascending order, in place, with the key-value heads
    that they read.

    Raises:
        UserError: none are kept, one does not exist, key-value heads would be read by unequal
            numbers of them, or attention holds weights of all heads (see `check_heads`).
    """
    index = _checked_index(kept, parts.heads, "head")
    repeats = parts.repeats
    if len(index) < parts.heads:
        check_heads(parts)
    readers = [sum(head // repeats == group for head in index) for group in range(parts.kv_heads)]
    if len(set(readers) - {0}) != 1:
        raise UserError(
            f"query heads {index} would leave {readers} of them to the {parts.kv_heads} key-value "
            f"heads; keep the same number of every {repeats} that follow each other, or none"
        )
    # A key-value head that no query head reads any more goes, too.
    kept_kv_heads = [group for group, count in enumerate(readers) if count]
    queries = members_of(index, parts.head_dim)
    keys = members_of(kept_kv_heads, parts.head_dim)
    select_rows(parts.query, queries)
    select_rows(parts.key, keys)
    select_rows(parts.value, keys)
    select_columns(parts.out, queries)
    _update_head_counts(parts)


def keep_kv_heads(parts: Sublayers, kept: Iterable[int]) -> None:
    """Leave only the key-value heads `kept` in place, each with all query heads that read it.

    Raises:
        UserError: see `keep_heads`.
    """
    keep_heads(parts, members_of(kept, parts.repeats))


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
        select_rows(linear, [])
    select_columns(parts.out, [])
    kind = type(parts.attention)
    if not issubclass(kind, _NoHeads):
        parts.attention.__class__ = type(kind.__name__, (_NoHeads, kind), {})


class _NoHeads:
    """In place of an attention's own forward, which cannot form heads out of nothing."""

    def forward(self, hidden_states: torch.Tensor, *_, **__) -> tuple[torch.Tensor, None]:
        return hidden_states.new_zeros(*hidden_states.shape[:-1], 0), None


def _update_head_counts(parts: Sublayers) -> None:
    """Correct the counts that attention modules of some architectures keep as attributes."""
    counts = {
        "num_heads": parts.heads,
        "num_attention_heads": parts.heads,
        "num_key_value_heads": parts.kv_heads,
        "num_key_value_groups": parts.repeats,
        "all_head_size": parts.heads * parts.head_dim,
    }
    for name, value in counts.items():
        if hasattr(parts.attention, name):
            setattr(parts.attention, name, value)


def _checked_index(kept: Iterable[int], count: int, unit: str) -> list[int]:
    """`kept` in ascending order without repeats, if all of them exist and there is one."""
    index = sorted(set(kept))
    if not index:
        raise UserError(
            f"removing all {count} {unit}s of a block is not possible; keep at least one"
        )
    for number in (index[0], index[-1]):
        if not 0 <= number < count:
            raise UserError(
                f"{unit} {number} does not exist; the block has {unit}s 0 to {count - 1}"
            )
    return index


def sync_config(model: PreTrainedModel) -> bool:
    """Let the configuration say what the blocks now hold, so that the model can be saved.

    The architecture's own fields do where they can (all blocks alike, and a fresh model of that
    configuration has the same shapes); else the counts of every block go under `prunebook_widths`,
    which `load_model` reads.

    Returns:
        Whether plain `transformers` can reload it.
    """
    parts = all_sublayers(model)
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
        # The entries are replaced, not the object: the blocks hold this very one.
        model.config.__dict__.clear()
        model.config.__dict__.update(plain.__dict__)
        return True
    names = ("heads", "kv_heads", "neurons")
    counts = {name: [getattr(part, name) for part in parts] for name in names}
    setattr(model.config, WIDTHS, counts)
    return False


def _describes(config: PreTrainedConfig, model: PreTrainedModel) -> bool:
    """Whether a fresh model of this configuration has the shapes of `model`."""
    try:
        config.validate()  # as saving does
        with torch.device("meta"):
            fresh = type(model)(copy.deepcopy(config))
    # e.g. heads that do not divide the width, or none
    except (ValueError, ArithmeticError, StrictDataclassError):
        return False
    shapes = {name: parameter.shape for name, parameter in fresh.named_parameters()}
    return shapes == {name: parameter.shape for name, parameter in model.named_parameters()}


def resize(model: PreTrainedModel) -> None:
    """Bring the blocks of a new model to the widths that its configuration has under
    `prunebook_widths`.

    Raises:
        ValueError: the widths do not fit this model.
    """
    widths = getattr(model.config, WIDTHS)
    try:
        counts = [widths[name] for name in ("heads", "kv_heads", "neurons")]
        for parts, heads, kv_heads, neurons in zip(all_sublayers(model), *counts, strict=True):
            _resize_block(parts, heads, kv_heads, neurons)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{WIDTHS} in config.json does not fit its blocks") from error


def _resize_block(parts: Sublayers, heads: int, kv_heads: int, neurons: int) -> None:
    if heads == 0:
        remove_heads(parts)
    else:
        readers = heads // kv_heads
        kept = []
        for group in range(kv_heads):
            kept += range(group * parts.repeats, group * parts.repeats + readers)
        keep_heads(parts, kept)
    if neurons == 0:
        remove_neurons(parts)
    else:
        keep_neurons(parts, range(neurons))

"""Hidden channels: which numbers of them a model can be left with, and how the others are cut out.

All parts of a model share its hidden channels, and its configuration may derive other sizes from
their number. What it makes of another number is found out on a fresh model of one block.
"""

import copy
from collections.abc import Iterable, Mapping

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from .anatomy import all_sublayers, find_stack, norms, sublayers
from .entries import select_entries, update_features
from .surgery import sync_config


def keep_channels(model: PreTrainedModel, kept: Iterable[int]) -> None:
    """Leave only the hidden channels `kept` of the whole model, in place: embeddings, norms, all
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
    readers = []
    writers = []
    for parts in all_sublayers(model):
        readers += [parts.query, parts.key, parts.value, *parts.first]
        writers += [parts.out, parts.last]
    if head is not None and not tied:
        readers.append(head)
    # What reads the residual stream loses columns; what writes it, and its norms, lose rows.
    for module in (embedding, *readers):
        module.weight = select_entries(module.weight, 1, index)
    for module in (*writers, *norms(model)):
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, select_entries(parameter, 0, index))
    if tied:
        head.weight = embedding.weight
        readers.append(head)
    for linear in (*readers, *writers):
        update_features(linear)
    embedding.embedding_dim = len(index)
    config.hidden_size = len(index)
    sync_config(model)


def count_heads(model: PreTrainedModel) -> int:
    """Query heads of a block; where blocks differ, those that the configuration goes by."""
    counts = {parts.heads for parts in all_sublayers(model)}
    if len(counts) == 1:
        return counts.pop()
    return model.config.num_attention_heads


def check_channels(count: int, heads: int) -> None:
    """Raise a `UserError` unless `count` hidden channels are a multiple of the heads, which
    configurations ask for."""
    if count % heads:
        nearest = max(1, round(count / heads)) * heads
        raise UserError(
            f"{count} hidden channels do not divide among {heads} heads, which the configuration "
            f"asks for; the nearest is {nearest}"
        )


def narrowing_obstacle(model: PreTrainedModel) -> str | None:
    """Why a model cannot lose hidden channels and still be reloaded; None for one that can."""
    config = model.config
    embedding = model.get_input_embeddings()
    if getattr(config, "head_dim", None) is None or embedding.embedding_dim != config.hidden_size:
        return "its configuration has no head_dim"
    # Gemma's scale is the root of the width: a reloaded model would have another one.
    if hasattr(embedding, "embed_scale"):
        return "their number scales its embeddings"
    # OLMo's norms know their width from the configuration alone.
    if not norms(model):
        return "its norms have no weights to cut"
    if _attention_follows_width(model):
        return "the size of its heads follows from them"
    return None


def check_narrowable(model: PreTrainedModel) -> None:
    """Raise a `UserError` where a model cannot lose hidden channels."""
    obstacle = narrowing_obstacle(model)
    if obstacle:
        raise UserError(f"{type(model).__name__} cannot lose hidden channels: {obstacle}")


def _attention_follows_width(model: PreTrainedModel) -> bool:
    """Whether a narrower configuration makes another attention."""
    width = model.config.hidden_size
    narrower = width - model.config.num_attention_heads
    return narrower > 0 and _attention_of(model, narrower) != _attention_of(model, width)


def _attention_of(model: PreTrainedModel, hidden: int) -> tuple:
    """What the configuration makes of attention at so many hidden channels: sizes, all but theirs,
    and the scale."""
    parts = sublayers(find_stack(one_block(model, {"hidden_size": hidden}))[1][0])
    sizes = (
        parts.head_dim,
        parts.query.out_features,
        parts.key.out_features,
        parts.out.in_features,
    )
    linears = {parts.query, parts.key, parts.value, parts.out}
    others = []
    for module in parts.attention.modules():
        if module not in linears:
            others += [parameter.shape for parameter in module.parameters(recurse=False)]
    return sizes, others, getattr(parts.attention, "scaling", None)


def one_block(model: PreTrainedModel, fields: Mapping[str, int]) -> PreTrainedModel:
    """A fresh model of one block without memory, of the same configuration but for some fields."""
    config = copy.deepcopy(model.config)
    for name, value in fields.items():
        setattr(config, name, value)
    config.num_hidden_layers = 1
    with torch.device("meta"):
        return type(model)(config)

"""A model whose linears are ternary: conversion, packing for inference, rebuilding from a folder.

Ma et al., The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits (arXiv 2402.17764);
where norms go, as in the code of the authors' FAQ (microsoft/unilm, bitnet, commit 768a3c8). The
layers themselves are in `ternary_linears`.
"""

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from .anatomy import find_stack, linears_of, sublayers
from .config import TERNARY
from .ternary_linears import BitLinear, PackedBitLinear

# Blocks of Llama's kind have these norms before attention and before the MLP.
_PRE_NORMS = ("input_layernorm", "post_attention_layernorm")


def replace_linears(model: PreTrainedModel, norm: bool) -> None:
    """Put a `BitLinear` with the same weights in place of every linear inside the blocks.

    Embeddings and head stay as they are.

    Args:
        model: a model with recognisable blocks, changed in place.
        norm: True lets every layer divide its input by its root mean square, and takes the norms
            before attention and MLP out. Their gains are multiplied into the weights that read
            them, so that only rounding changes what these layers compute. False leaves the model's
            norms as they are.

    Raises:
        UserError: no recognisable blocks, layers that are ternary already, or norms that are not
            those of Llama's kind.
    """
    name, stack = find_stack(model)
    linears = linears_of(f"{name}.", stack)
    if any(isinstance(linear, BitLinear) for linear in linears.values()):
        raise UserError(f"{type(model).__name__} has ternary layers already; load the model again")
    # The layers take over the epsilon of the norms that go.
    eps = None
    if norm:
        eps = _absorb_norms(stack)
    for path, linear in linears.items():
        weight = linear.weight
        if isinstance(linear, Conv1D):
            # GPT-2's layers store the transpose of their weight.
            weight = nn.Parameter(
                weight.detach().T.contiguous(), requires_grad=weight.requires_grad
            )
        # The layer gets the parameters themselves: nothing is copied.
        layer = BitLinear(weight.shape[1], weight.shape[0], norm_eps=eps, device="meta")
        layer.weight = weight
        layer.bias = linear.bias
        model.set_submodule(path, layer.train(linear.training))
    setattr(model.config, TERNARY, {"norm": norm, "packed": False})


def _absorb_norms(stack: nn.ModuleList) -> float:
    """Take out the norms before attention and MLP; the weights that read them get their gains.

    Args:
        stack: the blocks, changed in place.

    Returns:
        The epsilon of the norms.

    Raises:
        UserError: a block has other norms.
    """
    # All blocks are checked before the first one changes.
    for block in stack:
        _check_norms(block)
    eps = stack[0].input_layernorm.variance_epsilon
    for block in stack:
        parts = sublayers(block)
        readers_of = dict(
            zip(_PRE_NORMS, ((parts.query, parts.key, parts.value), parts.first), strict=True)
        )
        for norm, readers in readers_of.items():
            # (W diag(g)) x = W (g * x): column j of each reader is multiplied by gain j.
            for linear in readers:
                linear.weight.data *= getattr(block, norm).weight.data
            setattr(block, norm, nn.Identity())
    return eps


def _check_norms(block: nn.Module) -> None:
    """Raise a `UserError` unless the norms of a block are those of Llama's kind."""
    children = [name for name, _ in block.named_children()]
    norms = [name for name in children if "norm" in name or name.startswith("ln_")]
    if sorted(norms) == sorted(_PRE_NORMS) and hasattr(block.input_layernorm, "variance_epsilon"):
        return
    raise UserError(
        f"norm=True is not possible for {type(block).__name__}, whose norms are "
        f"{', '.join(norms) or 'none'}; use norm=False, or a model with the RMSNorms "
        f"{' and '.join(_PRE_NORMS)}"
    )


def pack(model: PreTrainedModel) -> None:
    """Put a `PackedBitLinear` in place of every `BitLinear`, for inference: two bits a weight.

    Args:
        model: a ternary model, changed in place; it cannot be trained afterwards.

    Raises:
        UserError: the model has no ternary layers.
    """
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, BitLinear)}
    if not layers:
        raise UserError(
            f"{type(model).__name__} has no ternary layers to pack; prune it with bitnet-b158 first"
        )
    for path, layer in layers.items():
        model.set_submodule(path, layer.to_packed().train(layer.training))
    setattr(model.config, TERNARY, getattr(model.config, TERNARY) | {"packed": True})


def rebuild(model: PreTrainedModel) -> None:
    """Give a new model the layers that `prunebook_ternary` in its configuration describes.

    Args:
        model: a model without the weights of its folder, which are read into these layers later.

    Raises:
        ValueError: an entry that `replace_linears` and `pack` do not write.
    """
    entry = getattr(model.config, TERNARY)
    if not isinstance(entry, dict) or set(entry) != {"norm", "packed"}:
        raise ValueError(f"{TERNARY} in config.json must hold norm and packed")
    replace_linears(model, entry["norm"])
    # Packed layers take the places of the ternary ones; their buffers are filled in later.
    if entry["packed"]:
        for path, layer in list(model.named_modules()):
            if isinstance(layer, BitLinear):
                size = (layer.in_features, layer.out_features)
                packed = PackedBitLinear(*size, layer.bias, layer.norm_eps, layer.weight.device)
                model.set_submodule(path, packed)
    # `replace_linears` has written an entry of layers that are not packed.
    setattr(model.config, TERNARY, entry)

"""Masks on blocks, heads, neurons and hidden channels: their shapes, and how they are cut out.

Masks are tensors by axis, float in [0, 1] or bool, 0 for what is removed: `blocks [L]`,
`heads [L, K]`, `neurons [L, m]`, `hidden [d]`. An axis without a mask stays whole. A key-value head
is removed together with all query heads that read it (in Sheared LLaMA, arXiv 2310.06694, the
source is LLaMA2-7B, which has as many key-value heads as heads). `passes.masked` runs a model under
masks and says where they act.
"""

from collections.abc import Mapping

import torch
from torch import nn

from ..errors import UserError
from ..models.anatomy import all_sublayers, check_heads, norms
from ..models.channels import check_channels, keep_channels
from ..models.sizes import check_sizes
from ..models.surgery import keep_kv_heads, keep_neurons, remove_blocks, sync_config


def mask_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of the mask of each axis, for a model whose blocks are alike."""
    blocks = all_sublayers(model)
    count = len(blocks)
    first = blocks[0]
    return {
        "blocks": (count,),
        "heads": (count, first.kv_heads),
        "neurons": (count, first.neurons),
        "hidden": (model.config.hidden_size,),
    }


def check_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Check that each mask has the shape of its axis and that the architecture allows for it.

    Args:
        model: a causal language model whose blocks are alike.
        masks: axis -> mask.

    Raises:
        UserError: a mask that does not fit.
    """
    shapes = mask_shapes(model)
    for axis, mask in masks.items():
        if axis not in shapes or tuple(mask.shape) != shapes[axis]:
            allowed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise UserError(
                f"mask {axis} {list(mask.shape)} does not fit the model; it takes {allowed}"
            )
    # Where a norm follows the sum, a block whose output is masked is still no identity.
    if "blocks" in masks and any(parts.post_norm for parts in all_sublayers(model)):
        raise UserError(
            f"{type(model).__name__} norms the sum with what a block adds; its blocks cannot be "
            "masked"
        )
    # A mean over channels would change with the channels that are masked.
    if "hidden" in masks and not all(hasattr(norm, "variance_epsilon") for norm in norms(model)):
        raise UserError(
            f"hidden masks need norms as Llama's, without a mean; {type(model).__name__} has others"
        )


def cut(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Remove in place everything whose mask is False; the model computes what it did under masks.

    Where the blocks that stay are left alike, the model saves as a plain folder of its
    architecture.

    Args:
        model: a causal language model whose blocks are alike.
        masks: axis -> bool mask.

    Raises:
        UserError: masks that are not bool, all of an axis masked, and see `check_masks` and
            `channels.keep_channels`.
    """
    if soft := [axis for axis, mask in masks.items() if mask.dtype is not torch.bool]:
        raise UserError(f"mask {soft[0]} is {masks[soft[0]].dtype}; only bool masks can be cut out")
    check_masks(model, masks)
    blocks = all_sublayers(model)
    kept_blocks = list(range(len(blocks)))
    # Whole blocks are removed first, then heads and neurons inside those that stay.
    if "blocks" in masks:
        kept_blocks = _kept(masks["blocks"])
    remove_blocks(model, set(range(len(blocks))) - set(kept_blocks))
    for index in kept_blocks:
        if "heads" in masks:
            keep_kv_heads(blocks[index], _kept(masks["heads"][index]))
        if "neurons" in masks:
            keep_neurons(blocks[index], _kept(masks["neurons"][index]))
    sync_config(model)
    # Hidden channels run through the whole model, so that they are removed once, at the end.
    if "hidden" in masks:
        keep_channels(model, _kept(masks["hidden"]))


def _kept(mask: torch.Tensor) -> list[int]:
    """The indices where a mask `[n]` is True."""
    return mask.nonzero().flatten().tolist()


def check_shape(model: nn.Module, sizes: Mapping[str, int]) -> dict[str, int]:
    """Check that masks can leave the model in a shape, with all blocks alike.

    Heads are removed by whole key-value heads, which `sizes.check_sizes` does not ask for.

    Args:
        model: a causal language model.
        sizes: axis -> what stays of it: `blocks`, query `heads`, `neurons` or `hidden`.

    Returns:
        What the model has of every axis (heads: query heads).

    Raises:
        UserError: masks cannot leave this shape; the nearest that they can leave is named. Or the
            blocks differ.
    """
    parts = all_sublayers(model)[0]
    width = model.config.hidden_size
    # Neurons are named in any case, so that blocks that differ are refused.
    checked = {"neurons": parts.neurons}
    checked |= {axis: size for axis, size in sizes.items() if axis in ("neurons", "blocks")}
    if "hidden" in sizes:
        checked["hidden"] = width
    # Blocks and neurons have the rules of any shape; what else is asked for follows.
    check_sizes(model, checked)
    full = {
        "blocks": mask_shapes(model)["blocks"][0],
        "heads": parts.heads,
        "neurons": parts.neurons,
        "hidden": width,
    }
    for axis in ("heads", "hidden"):
        if axis in sizes and not 1 <= sizes[axis] <= full[axis]:
            raise UserError(
                f"{axis} {sizes[axis]} of {full[axis]} cannot stay; use 1 to {full[axis]}"
            )
    if "heads" in sizes:
        check_heads(parts)
        if sizes["heads"] % parts.repeats:
            nearest = max(1, round(sizes["heads"] / parts.repeats)) * parts.repeats
            raise UserError(
                f"heads {sizes['heads']} are no whole key-value heads, read by {parts.repeats} "
                f"each; nearest: {nearest}"
            )
    # A configuration asks for hidden channels that divide among the query heads.
    if {"heads", "hidden"} & set(sizes):
        check_channels(sizes.get("hidden", width), sizes.get("heads", parts.heads))
    return full

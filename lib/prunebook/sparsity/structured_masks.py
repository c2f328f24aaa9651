"""Masks on blocks, heads, neurons and hidden channels of a running model, and what they leave cut
out for good.

Masks are tensors by axis, float in [0, 1] or bool, 0 for what goes; an axis without a mask stays
whole:

    blocks [L]      scales what attention and MLP of a block add to the residual stream
    heads [L, K]    scales the outputs of a key-value head's query heads, before the output
    projection neurons [L, m]  scales the inputs of the MLP's last matrix
    hidden [d]      scales what blocks add, and normalised activations; norms count only channels
    that are not 0

A key-value head goes with all query heads that read it. Where masks act is Sheared LLaMA's choice
(arXiv 2310.06694, section 2.1 and the official code; its source, LLaMA2-7B, has as many key-value
heads as heads). With masks of 0 and 1 the masked model computes what the one that `cut` makes does.
Embeddings are left alone: channels that go are read only behind norms, which give 0 for them, so
that a head that is tied to the embeddings sees them as 0, once.
"""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from ..errors import UserError
from ..models.anatomy import all_sublayers, check_heads, norms
from ..models.sizes import check_channels, check_sizes
from ..models.surgery import keep_channels, keep_kv_heads, keep_neurons, remove_blocks, sync_config


def mask_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of masks by axis, for a model whose blocks are alike (see
    `structures.check_sizes`)."""
    inside = all_sublayers(model)
    rows = len(inside)
    first = inside[0]
    return {
        "blocks": (rows,),
        "heads": (rows, first.kv_heads),
        "neurons": (rows, first.neurons),
        "hidden": (model.config.hidden_size,),
    }


def check_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Raise a `UserError` unless each mask has the shape of its axis and the architecture allows
    for it."""
    shapes = mask_shapes(model)
    for axis, mask in masks.items():
        if axis not in shapes or tuple(mask.shape) != shapes[axis]:
            allowed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise UserError(
                f"mask {axis} {list(mask.shape)} does not fit the model; it takes {allowed}"
            )
    if "blocks" in masks and any(parts.post_norm for parts in all_sublayers(model)):
        raise UserError(
            f"{type(model).__name__} norms the sum with what a block adds; its blocks cannot be "
            "masked"
        )
    if "hidden" in masks and not all(hasattr(norm, "variance_epsilon") for norm in norms(model)):
        raise UserError(
            f"hidden masks need norms as Llama's, without a mean; {type(model).__name__} has others"
        )


@contextlib.contextmanager
def masked(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While open, the model computes under the masks; gradients reach them.

    Args:
        masks: axis -> mask, on the model's device.

    Raises:
        UserError: see `check_masks`.
    """
    check_masks(model, masks)
    handles = []
    added_by = [axis for axis in ("blocks", "hidden") if axis in masks]
    try:
        for index, parts in enumerate(all_sublayers(model)):
            if "heads" in masks:
                of_channels = masks["heads"][index].repeat_interleave(
                    parts.repeats * parts.head_dim
                )
                handles.append(parts.out.register_forward_pre_hook(_scale_input(of_channels)))
            if "neurons" in masks:
                handles.append(
                    parts.last.register_forward_pre_hook(_scale_input(masks["neurons"][index]))
                )
            if added := [
                masks[axis][index] if axis == "blocks" else masks[axis] for axis in added_by
            ]:
                hook = _scale_output(math.prod(added[1:], start=added[0]))
                handles += [
                    linear.register_forward_hook(hook) for linear in (parts.out, parts.last)
                ]
        for norm in norms(model) if "hidden" in masks else ():
            handles.append(norm.register_forward_hook(_norm_kept(masks["hidden"])))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scale_input(mask: torch.Tensor):
    return lambda _, inputs: (inputs[0] * mask.to(inputs[0].dtype),)


def _scale_output(mask: torch.Tensor):
    return lambda _, __, output: output * mask.to(output.dtype)


def _norm_kept(mask: torch.Tensor):
    """RMSNorm over the channels that are not 0: `w z x / sqrt(sum(x^2 m) / sum(m) + eps)`, m = [z
    != 0]."""
    mask = mask.float()
    kept = (mask != 0).float()

    def hook(norm, inputs, _):
        x = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))
        # no product, which autocast would round
        mean_square = (x.square() * kept).sum(-1, keepdim=True) / kept.sum()
        normed = x * (mean_square + norm.variance_epsilon).rsqrt() * mask
        return norm.weight * normed.to(inputs[0].dtype)

    return hook


def cut(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Take out, in place, all that masks of 0 and 1 take off; the result computes what the masked
    model does.

    Where the blocks that stay are left alike, it saves as a plain folder of its architecture.

    Args:
        masks: axis -> bool mask.

    Raises:
        UserError: masks that are not bool, all of an axis masked, and see `check_masks` and
            `structures.keep_channels`.
    """
    if soft := [axis for axis, mask in masks.items() if mask.dtype is not torch.bool]:
        raise UserError(f"mask {soft[0]} is {masks[soft[0]].dtype}; only bool masks can be cut out")
    check_masks(model, masks)
    inside = all_sublayers(model)
    stays = _kept(masks["blocks"]) if "blocks" in masks else list(range(len(inside)))
    remove_blocks(model, set(range(len(inside))) - set(stays))
    for index in stays:
        if "heads" in masks:
            keep_kv_heads(inside[index], _kept(masks["heads"][index]))
        if "neurons" in masks:
            keep_neurons(inside[index], _kept(masks["neurons"][index]))
    sync_config(model)
    if "hidden" in masks:
        keep_channels(model, _kept(masks["hidden"]))


@torch.no_grad()
def cut_difference(
    model: nn.Module,
    masks: Mapping[str, torch.Tensor],
    tokens: torch.Tensor,
    dtype: torch.dtype = torch.float64,
) -> tuple[float, float]:
    """Logits of the masked model against those of the cut one: the largest absolute difference, the
    largest logit.

    A copy of the model computes both in `dtype`: float64 shows whether they are the same function,
    a smaller one what rounding makes of it. In float64 norms like Llama's are in float64, too,
    which transformers rounds to float32.

    Args:
        masks: axis -> bool mask.
        tokens: `[n, length]`.

    Raises:
        UserError: see `cut`.
    """
    copied = copy.deepcopy(model).to(dtype)
    tokens = tokens.to(copied.device)
    all_kept = {}
    if dtype is torch.float64 and all(hasattr(norm, "variance_epsilon") for norm in norms(copied)):
        all_kept["hidden"] = torch.ones(
            copied.config.hidden_size, dtype=torch.bool, device=copied.device
        )
    with masked(copied, all_kept | dict(masks)):
        under_masks = copied(input_ids=tokens, use_cache=False).logits
    cut(copied, masks)
    with masked(
        copied, {axis: mask[: copied.config.hidden_size] for axis, mask in all_kept.items()}
    ):
        after_cut = copied(input_ids=tokens, use_cache=False).logits
    return (under_masks - after_cut).abs().max().item(), after_cut.abs().max().item()


def _kept(mask: torch.Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def check_shape(model: nn.Module, sizes: Mapping[str, int]) -> dict[str, int]:
    """What the model has of every axis (heads: query heads), if `sizes` can be what masks leave,
    all blocks alike.

    Other than in `structures.check_sizes`, heads go by whole key-value heads.

    Raises:
        UserError: they cannot, and the nearest that can is named; or the blocks differ.
    """
    parts = all_sublayers(model)[0]
    width = model.config.hidden_size
    check_sizes(
        model,
        {"neurons": parts.neurons}  # named in any case, so that all blocks must be alike
        | {axis: size for axis, size in sizes.items() if axis in ("neurons", "blocks")}
        | {axis: width for axis in sizes if axis == "hidden"},
    )
    full = {
        "blocks": mask_shapes(model)["blocks"][0],
        "heads": parts.heads,
        "neurons": parts.neurons,
        "hidden": width,
    }
    for axis in {"heads", "hidden"} & set(sizes):
        if not 1 <= sizes[axis] <= full[axis]:
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
    if {"heads", "hidden"} & set(sizes):
        check_channels(sizes.get("hidden", width), sizes.get("heads", parts.heads))
    return full

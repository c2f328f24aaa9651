"""Run a model under masks on its blocks, heads, neurons and hidden channels.

Masks are tensors by axis, float in [0, 1] or bool, 0 for what goes; an axis without a mask stays
whole. `sparsity.structured_masks` has their shapes, and cuts out for good what they take off:

    blocks [L]      scale what attention and MLP of a block add to the residual stream
    heads [L, K]    scale the outputs of a key-value head's query heads, before the output
                    projection
    neurons [L, m]  scale the inputs of the MLP's last matrix
    hidden [d]      scale what blocks add, and normalised activations; norms count only the
                    channels that are not 0

Where masks act is Sheared LLaMA's choice (arXiv 2310.06694, section 2.1 and the official code).
With masks of 0 and 1 the masked model computes what the one that `cut` makes does. Embeddings are
left alone: channels that go are read only behind norms, which give 0 for them, so that a head that
is tied to the embeddings sees them as 0, once.
"""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.anatomy import Sublayers, all_sublayers, norms
from ..sparsity.structured_masks import check_masks, cut
from .hooks import Hook, PreHook, forward_hooks, forward_pre_hooks


@contextlib.contextmanager
def masked(model: PreTrainedModel, masks: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let the model compute under the masks while the context is open; gradients reach them.

    Args:
        model: a causal language model with heads and neurons that can be told apart.
        masks: axis -> mask, on the model's device.

    Raises:
        UserError: see `structured_masks.check_masks`.
    """
    check_masks(model, masks)
    pre_hooks: list[tuple[nn.Module, PreHook]] = []
    hooks: list[tuple[nn.Module, Hook]] = []
    for index, parts in enumerate(all_sublayers(model)):
        pre_hooks += _unit_hooks(parts, index, masks)
        # A block's mask and that of the channels scale the same outputs: one product for both.
        added = []
        if "blocks" in masks:
            added.append(masks["blocks"][index])
        if "hidden" in masks:
            added.append(masks["hidden"])
        if added:
            hook = _scale_output(math.prod(added[1:], start=added[0]))
            hooks += [(parts.out, hook), (parts.last, hook)]
    if "hidden" in masks:
        hooks += [(norm, _norm_kept(masks["hidden"])) for norm in norms(model)]
    with forward_pre_hooks(pre_hooks), forward_hooks(hooks):
        yield


def _unit_hooks(
    parts: Sublayers, index: int, masks: Mapping[str, torch.Tensor]
) -> list[tuple[nn.Module, PreHook]]:
    """The hooks that scale what the heads and the neurons of one block hand on."""
    hooks = []
    if "heads" in masks:
        # one entry of the mask for all channels of the query heads that read a key-value head
        of_channels = masks["heads"][index].repeat_interleave(parts.repeats * parts.head_dim)
        hooks.append((parts.out, _scale_input(of_channels)))
    if "neurons" in masks:
        hooks.append((parts.last, _scale_input(masks["neurons"][index])))
    return hooks


def _scale_input(mask: torch.Tensor) -> PreHook:
    def hook(_, inputs):
        return (inputs[0] * mask.to(inputs[0].dtype),)

    return hook


def _scale_output(mask: torch.Tensor) -> Hook:
    def hook(_, __, output):
        return output * mask.to(output.dtype)

    return hook


def _norm_kept(mask: torch.Tensor) -> Hook:
    """RMSNorm over the channels that are not 0: `w z x / sqrt(sum(x^2 m) / sum(m) + eps)`, with
    `m = [z != 0]`."""
    mask = mask.float()
    kept = (mask != 0).float()

    def hook(norm, inputs, _):
        x = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))
        # a sum and not a matrix product, which autocast would round
        mean_square = (x.square() * kept).sum(-1, keepdim=True) / kept.sum()
        normed = x * (mean_square + norm.variance_epsilon).rsqrt() * mask
        return norm.weight * normed.to(inputs[0].dtype)

    return hook


@torch.no_grad()
def cut_difference(
    model: PreTrainedModel,
    masks: Mapping[str, torch.Tensor],
    tokens: torch.Tensor,
    dtype: torch.dtype = torch.float64,
) -> tuple[float, float]:
    """Compare the logits of the masked model with those of the model that is cut.

    A copy of the model computes both in `dtype`: float64 shows whether they are the same function,
    a smaller one what rounding makes of it. In float64 norms like Llama's are in float64, too,
    which transformers rounds to float32.

    Args:
        model: the whole model, which stays as it is.
        masks: axis -> bool mask.
        tokens: int64 `[n, length]`.
        dtype: dtype of the copy.

    Returns:
        The largest absolute difference of two logits, and the largest logit of the cut model.

    Raises:
        UserError: see `structured_masks.cut`.
    """
    copied = copy.deepcopy(model).to(dtype)
    tokens = tokens.to(copied.device)
    all_kept = {}
    # A mask of ones on the channels replaces transformers' norm, which would round to float32.
    if dtype is torch.float64 and all(hasattr(norm, "variance_epsilon") for norm in norms(copied)):
        width = copied.config.hidden_size
        all_kept["hidden"] = torch.ones(width, dtype=torch.bool, device=copied.device)
    # the copy under the masks, then the same copy cut
    with masked(copied, all_kept | dict(masks)):
        under_masks = copied(input_ids=tokens, use_cache=False).logits
    cut(copied, masks)
    left_width = copied.config.hidden_size
    with masked(copied, {axis: mask[:left_width] for axis, mask in all_kept.items()}):
        after_cut = copied(input_ids=tokens, use_cache=False).logits
    return (under_masks - after_cut).abs().max().item(), after_cut.abs().max().item()

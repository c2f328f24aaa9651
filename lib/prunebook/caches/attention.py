"""What lets a cache see the queries: a wrapper around transformers' `sdpa` attention."""

import functools

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from ..errors import UserError

OWNER = "pruned_layer"  # attribute of the keys that a cache returns: the layer they belong to
ALLOWED = "use a decoder model with full causal attention, loaded with attn_implementation='sdpa'"
# Options of an attention whose weights are not the plain softmax over all earlier tokens.
_SPECIAL_OPTIONS = ("sliding_window", "softcap", "position_bias", "s_aux")


def install() -> None:
    """Put the wrapper around `sdpa`, once; other implementations keep their entries."""
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if getattr(plain, "sees_pruned_layers", False):
        return

    @functools.wraps(plain)
    def attention(module, query, key, value, attention_mask, **options):
        layer = key.__dict__.pop(OWNER, None)
        if layer is None:  # not the keys of a pruned cache
            return plain(module, query, key, value, attention_mask, **options)
        layer.policy.waiting = False
        _check_module(module, options)
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        valid = real_tokens(attention_mask, query)
        if layer.is_initialized:
            return layer.decode(query, key, value, valid, scaling), None
        # The prompt: attention is the model's own, and the layer reads its tokens after it.
        _check_causal(attention_mask, valid)
        output = plain(module, query, key, value, attention_mask, **options)
        layer.read_prompt(query, key, value, valid, scaling, module.layer_idx)
        return output

    attention.sees_pruned_layers = True
    AttentionInterface.register("sdpa", attention)


def real_tokens(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor:
    """Which of the new tokens are no padding: bool `[batch, new]`.

    These are the new tokens that the last query may see.

    Args:
        mask: None or bool `[batch, 1, new, all tokens seen]`.
        query: `[batch, heads, new, width]`.

    Raises:
        UserError: a mask of numbers.
    """
    batch, _, new, _ = query.shape
    if mask is None:
        return torch.ones(batch, new, dtype=torch.bool, device=query.device)
    if mask.dtype != torch.bool:
        raise UserError(
            f"an attention mask of {mask.dtype} cannot be pruned; use a 2-D mask of 0 and 1, or "
            "none"
        )
    return mask[:, 0, -1, -new:].expand(batch, new)


def _check_module(module: nn.Module, options: dict) -> None:
    """Raise a `UserError` unless attention weights are the softmax over all earlier tokens."""
    special = [name for name in _SPECIAL_OPTIONS if options.get(name) is not None]
    if not getattr(module, "is_causal", True):
        special.append("encoder attention")
    layer_types = getattr(module.config, "layer_types", None)
    if layer_types and layer_types[module.layer_idx] != "full_attention":
        special.append(layer_types[module.layer_idx])
    if special:
        raise UserError(
            f"{type(module).__name__} uses {special[0]}, which cannot be pruned; {ALLOWED}"
        )


def _check_causal(mask: torch.Tensor | None, valid: torch.Tensor) -> None:
    """Raise a `UserError` unless each token of the prompt sees all earlier real ones.

    That is not so where attention works in chunks or a row packs several documents.
    """
    if mask is None:
        return
    visible = mask[:, 0].sum(-1).expand(valid.shape)  # tokens that each query sees
    if not torch.equal(visible, valid.cumsum(1)):
        raise UserError(
            "this attention mask is not causal over the whole prompt and cannot be pruned; "
            f"{ALLOWED}"
        )

"""What lets a cache see the queries: a wrapper before transformers' `sdpa` attention."""

import functools

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from ..errors import UserError

OWNER = "pruned_layer"  # attribute of the keys that a cache returns: the layer they belong to
ALLOWED = "use a decoder model with full causal attention, loaded with attn_implementation='sdpa'"


def install() -> None:
    """Put the wrapper before `sdpa` unless it is there already; other implementations keep their
    entries."""
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if getattr(plain, "sees_pruned_layers", False):
        return

    @functools.wraps(plain)
    def attention(module, query, key, value, attention_mask, **options):
        layer = key.__dict__.pop(OWNER, None)
        if layer is None:
            return plain(module, query, key, value, attention_mask, **options)
        layer.plan.waiting = False
        _check(module, options)
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        valid = real_tokens(attention_mask, query)
        if layer.is_initialized:
            return layer.decode(query, key, value, valid, scaling), None
        _check_causal(attention_mask, valid)
        output = plain(module, query, key, value, attention_mask, **options)
        layer.read_prompt(query, key, value, valid, scaling, module.layer_idx)
        return output

    attention.sees_pruned_layers = True
    AttentionInterface.register("sdpa", attention)


def real_tokens(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor:
    """Which of the new tokens are no padding, bool `[batch, new]`: what the last query may see of
    them.

    Args:
        mask: None or bool `[batch, 1, new, all tokens seen]`.
        query: `[batch, heads, new, width]`.
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


def _check(module, options: dict) -> None:
    """Raise a `UserError` for attention whose weights are not the softmax over all earlier
    tokens."""
    types = getattr(module.config, "layer_types", None)
    kind = types[module.layer_idx] if types else "full_attention"
    names = ("sliding_window", "softcap", "position_bias", "s_aux")
    special = [name for name in names if options.get(name) is not None]
    if not getattr(module, "is_causal", True):
        special.append("encoder attention")
    if special or kind != "full_attention":
        raise UserError(
            f"{type(module).__name__} uses {(special or [kind])[0]}, which cannot be pruned; "
            f"{ALLOWED}"
        )


def _check_causal(mask: torch.Tensor | None, valid: torch.Tensor) -> None:
    """Raise a `UserError` unless each token of the prompt sees all earlier real ones: chunks or
    packed documents."""
    if mask is not None and not torch.equal(
        mask[:, 0].sum(-1).expand(valid.shape), valid.cumsum(1)
    ):
        raise UserError(
            "this attention mask is not causal over the whole prompt and cannot be pruned; "
            f"{ALLOWED}"
        )

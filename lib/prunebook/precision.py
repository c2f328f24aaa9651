"""How forward passes compute: `exact` in the model's dtype, `fast` with bfloat16 matrix products.

On the CPU both go through oneDNN, which uses what the processor has; torch's default, MKL, leaves AVX-512
unused on AMD processors.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .errors import UserError

PRECISIONS = ("exact", "fast")
_SHORT = 1024  # tokens up to which a head's attention matrix stays in cache


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 ones there (native instructions)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextlib.contextmanager
def matmul_precision(device: torch.device, precision: str):
    """Context for forward passes and the gradients of what they computed. `exact` computes in the model's dtype; `fast`
    runs matrix products in bfloat16 while norms, residual stream and weights keep their dtype (torch autocast).

    Raises:
        UserError: a precision other than 'exact' or 'fast'.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use {' or '.join(map(repr, PRECISIONS))}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=precision == "fast"))
        if device.type == "cpu" and torch.backends.mkldnn.is_available():
            stack.enter_context(_OneDnn())
        yield


class _OneDnn(TorchFunctionMode):
    """On the CPU: float32 linear layers, with their gradients, and, in inference, short bfloat16 attention as oneDNN
    products."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inference, autocast = not torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        if func is F.linear and not kwargs and not autocast:
            return _linear(*args) if inference else _Linear.apply(*args)
        if func is F.scaled_dot_product_attention and inference and autocast:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


class _Linear(torch.autograd.Function):
    """`_linear` with the gradients that are asked for."""

    @staticmethod
    def forward(ctx, x, weight, bias=None):
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return _linear(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        return (
            None if weight is None else _linear(gradient, weight.T),
            None if x is None else _linear(rows.T, x.flatten(0, -2).T),
            rows.sum(0) if len(ctx.needs_input_grad) > 2 and ctx.needs_input_grad[2] else None,
        )[: len(ctx.needs_input_grad)]


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x W^T + b` in the operands' dtype."""
    if not (x.dtype is weight.dtype is torch.float32 and x.device.type == "cpu" and weight.numel()):
        return F.linear(x, weight, bias)
    # Strided operands would fall back to a reference loop.
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), bias, "none", [], "")


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Attention `[n, heads, tokens, width]`; causal and short: two batched bfloat16 products a sequence, with
    the softmax between them in cache (the fused CPU kernel multiplies through MKL)."""
    length = query.shape[2]
    plain = is_causal and attn_mask is None and not dropout_p and key.shape[2] == length <= _SHORT
    if not plain or query.device.type != "cpu" or query.shape[0] * length == 0:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    query, key, value = (t.to(torch.bfloat16) for t in (query, key, value))
    repeats = query.shape[1] // key.shape[1]  # grouped queries
    scale = query.shape[3] ** -0.5 if scale is None else scale
    mask = query.new_full((length, length), -torch.inf).triu(1)
    output = torch.empty_like(query)
    for i in range(len(query)):
        keys, values = (t[i].repeat_interleave(repeats, 0) for t in (key, value))
        scores = torch.baddbmm(mask, query[i], keys.transpose(1, 2), alpha=scale)
        output[i] = scores.softmax(-1) @ values
    return output

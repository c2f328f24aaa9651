"""How forward passes compute: `exact` in the model's dtype, `fast` with bfloat16 matrix products.

On the CPU float32 linear layers go through oneDNN or MKL, whichever is faster there: MKL leaves
AVX-512 unused on AMD processors. `cpu_choices` measures it once a process; the digits of the two
may differ.
"""

import contextlib
import functools

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from .cpu_choices import is_clearly_faster, linear_library, onednn_linear

PRECISIONS = ("exact", "fast")
_SHORT = 1024  # tokens up to which a head's attention matrix stays in cache


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 ones there (native instructions)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def chosen_ways(device: torch.device, precision: str) -> str:
    """The ways of computing that were chosen by measurement, for keys of cached results: others
    give other digits."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return "default"
    attention = ""
    if precision == "fast":
        attention = " fused" if _fused_attention_is_faster() else " products"
    return linear_library() + attention


@contextlib.contextmanager
def matmul_precision(device: torch.device, precision: str):
    """Context for forward passes and the gradients of what they computed. `exact` computes in the
    model's dtype; `fast` runs matrix products in bfloat16 while norms, residual stream and weights
    keep their dtype (torch autocast).

    Raises:
        UserError: a precision other than 'exact' or 'fast'.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"precision {precision!r} is unknown; use {' or '.join(map(repr, PRECISIONS))}"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "fast")
        )
        if device.type == "cpu" and torch.backends.mkldnn.is_available():
            stack.enter_context(_CpuProducts())
        yield


class _CpuProducts(TorchFunctionMode):
    """Products on the CPU.

    In `exact`, float32 linear layers with their gradients go through the faster library. In
    inference with `fast`, linears that read the same tensor share its cast to bfloat16, and short
    causal attention takes the faster of two ways.
    """

    def __init__(self):
        super().__init__()
        # tensor, its version, the tensor's cast
        self._cast_of: tuple[torch.Tensor, int, torch.Tensor] | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inference = not torch.is_grad_enabled()
        autocast = torch.is_autocast_enabled("cpu")
        if func is F.linear and not kwargs:
            if autocast:
                return F.linear(self._cast(args[0]), *args[1:]) if inference else F.linear(*args)
            return _linear(*args) if inference else _Linear.apply(*args)
        if func is F.scaled_dot_product_attention and inference and autocast:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _cast(self, x: torch.Tensor) -> torch.Tensor:
        """What autocast makes of a linear's float32 input; the last cast is kept for the next
        linear."""
        if x.dtype is not torch.float32 or x.device.type != "cpu" or x.is_inference():
            return x
        if self._cast_of is None or self._cast_of[0] is not x or self._cast_of[1] != x._version:
            self._cast_of = (x, x._version, x.to(torch.get_autocast_dtype("cpu")))
        return self._cast_of[2]


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


def _linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`x W^T + b` in the operands' dtype."""
    if not (x.dtype is weight.dtype is torch.float32 and x.device.type == "cpu" and weight.numel()):
        return F.linear(x, weight, bias)
    if linear_library() == "mkl":
        return F.linear(x, weight, bias)
    return onednn_linear(x, weight, bias)


@contextlib.contextmanager
def _bfloat16_operands():
    """Let oneDNN round float32 operands of products to bfloat16; it accumulates and returns
    float32."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def rounded_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`x W^T` of float32 CPU matrices, not empty, whose values bfloat16 holds exactly: the result
    is float32.

    Sums are in float32. Processors without native bfloat16 products compute the same product in
    float32.
    """
    if not torch.backends.mkldnn.is_available():
        return F.linear(x, weight)
    with _bfloat16_operands():
        return onednn_linear(x, weight)


@functools.cache
def _fused_attention_is_faster() -> bool:
    """Whether torch's fused kernel beats two batched products on this CPU (some 50 ms, once a
    process)."""
    query, key = (
        torch.linspace(-1, 1, heads * 512 * 64).view(1, heads, 512, 64).bfloat16()
        for heads in (9, 3)
    )
    options = {"is_causal": True, "enable_gqa": True}
    return is_clearly_faster(
        lambda: F.scaled_dot_product_attention(query, key, key, **options),
        lambda: _two_products(query, key, key, 64**-0.5),
    )


def _attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """Attention `[n, heads, tokens, width]` with bfloat16 products; causal and short: the faster of
    two ways."""
    length = query.shape[2]
    plain = is_causal and attn_mask is None and not dropout_p and key.shape[2] == length <= _SHORT
    plain = plain and query.device.type == "cpu" and query.shape[0] * length > 0
    if not plain or _fused_attention_is_faster():
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scale = query.shape[3] ** -0.5 if scale is None else scale
    return _two_products(*(t.to(torch.bfloat16) for t in (query, key, value)), scale)


def _two_products(query, key, value, scale: float) -> torch.Tensor:
    """Causal attention of bfloat16: two batched products a sequence, with the softmax between them
    in cache."""
    length = query.shape[2]
    repeats = query.shape[1] // key.shape[1]  # grouped queries
    mask = query.new_full((length, length), -torch.inf).triu(1)
    output = torch.empty_like(query)
    for i in range(len(query)):
        keys, values = (t[i].repeat_interleave(repeats, 0) for t in (key, value))
        scores = torch.baddbmm(mask, query[i], keys.transpose(1, 2), alpha=scale)
        output[i] = scores.softmax(-1) @ values
    return output

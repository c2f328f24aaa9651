"""How forward passes compute: `exact` in the model's dtype, `fast` with bfloat16 matrix products.

On the CPU float32 linear layers go through oneDNN or MKL, whichever is faster there: MKL leaves
AVX-512 unused on AMD processors. `cpu_choices` measures it once a process; the digits of the two
may differ.
"""

import contextlib
import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from .cpu_choices import is_clearly_faster, linear_library, onednn_linear

PRECISIONS = ("exact", "fast")

# Longest sequence whose attention matrix of one head stays in a CPU's caches.
_SHORT = 1024


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 ones there (native instructions)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def chosen_ways(device: torch.device, precision: str) -> str:
    """The ways of computing that were chosen by measurement.

    They are part of the keys of cached results: other ways give other digits.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return "default"
    if precision != "fast":
        return linear_library()
    if _fused_attention_is_faster():
        return linear_library() + " fused"
    return linear_library() + " products"


@contextlib.contextmanager
def matmul_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Context for forward passes and the gradients of what they computed.

    Args:
        device: where the passes compute.
        precision: `exact` computes in the model's dtype; `fast` runs matrix products in bfloat16
            while norms, residual stream and weights keep their dtype (torch autocast).

    Raises:
        UserError: a precision other than 'exact' or 'fast'.
    """
    if precision not in PRECISIONS:
        known = " or ".join(map(repr, PRECISIONS))
        raise UserError(f"precision {precision!r} is unknown; use {known}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "fast")
        )
        if device.type == "cpu" and torch.backends.mkldnn.is_available():
            stack.enter_context(_CpuProducts())
        yield


class _CpuProducts(TorchFunctionMode):
    """Chooses how the CPU computes products while the mode is on.

    In `exact`, float32 linear layers with their gradients go through the faster library. In
    inference with `fast`, linears that read the same tensor share its cast to bfloat16, and short
    causal attention takes the faster of two ways.
    """

    def __init__(self):
        super().__init__()
        # the tensor that was cast last, its version then, and its cast
        self._cast_of: tuple[torch.Tensor, int, torch.Tensor] | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inference = not torch.is_grad_enabled()
        autocast = torch.is_autocast_enabled("cpu")
        if func is F.linear and not kwargs:
            if autocast and inference:
                return F.linear(self._cast(args[0]), *args[1:])
            if autocast:
                return F.linear(*args)
            if inference:
                return _linear(*args)
            return _Linear.apply(*args)
        if func is F.scaled_dot_product_attention and inference and autocast:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _cast(self, x: torch.Tensor) -> torch.Tensor:
        """What autocast makes of a linear's float32 input; the last cast is kept for the next
        linear."""
        if x.dtype is not torch.float32 or x.device.type != "cpu" or x.is_inference():
            return x
        # A write in place raises the version of a tensor: its cast is then no longer its own.
        if self._cast_of is None or self._cast_of[0] is not x or self._cast_of[1] != x._version:
            self._cast_of = (x, x._version, x.to(torch.get_autocast_dtype("cpu")))
        return self._cast_of[2]


class _Linear(torch.autograd.Function):
    """`_linear` with the gradients that are asked for."""

    @staticmethod
    def forward(ctx, x, weight, bias=None):
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        # The gradient of each operand needs the other one.
        saved_x = saved_weight = None
        if needs_weight:
            saved_x = x
        if needs_x:
            saved_weight = weight
        ctx.save_for_backward(saved_x, saved_weight)
        return _linear(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        gradients = [None] * len(ctx.needs_input_grad)
        # dL/dx = G W, dL/dW = G^T x and dL/db = the sum of the rows of G
        if weight is not None:
            gradients[0] = _linear(gradient, weight.T)
        if x is not None:
            gradients[1] = _linear(rows.T, x.flatten(0, -2).T)
        if len(gradients) > 2 and ctx.needs_input_grad[2]:
            gradients[2] = rows.sum(0)
        return tuple(gradients)


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
def _bfloat16_operands() -> Iterator[None]:
    """Let oneDNN round float32 operands of products to bfloat16; it accumulates and returns
    float32."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def rounded_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`x W^T` of matrices whose values bfloat16 holds exactly.

    Sums and result are float32. Processors without native bfloat16 products compute the same
    product in float32.

    Args:
        x: float32 CPU matrix, not empty.
        weight: float32 CPU matrix, not empty.
    """
    if not torch.backends.mkldnn.is_available():
        return F.linear(x, weight)
    with _bfloat16_operands():
        return onednn_linear(x, weight)


@functools.cache
def _fused_attention_is_faster() -> bool:
    """Whether torch's fused kernel beats two batched products on this CPU.

    The first call measures both, which takes some 50 ms.
    """
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
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention `[n, heads, tokens, width]` with bfloat16 products.

    Where it is causal and short, the faster of two ways computes it. The arguments are those of
    torch.
    """
    length = query.shape[2]
    # The products here know one mask alone, that of causal attention over equal lengths.
    plain = is_causal and attn_mask is None and not dropout_p and key.shape[2] == length <= _SHORT
    plain = plain and query.device.type == "cpu" and query.shape[0] * length > 0
    if not plain or _fused_attention_is_faster():
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if scale is None:
        scale = query.shape[3] ** -0.5
    return _two_products(*(t.to(torch.bfloat16) for t in (query, key, value)), scale)


def _two_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention of bfloat16 by two batched products a sequence, so that the softmax between
    them stays in cache."""
    length = query.shape[2]
    # Query heads that read one key-value head.
    repeats = query.shape[1] // key.shape[1]
    mask = query.new_full((length, length), -torch.inf).triu(1)
    output = torch.empty_like(query)
    for i in range(len(query)):
        keys, values = (t[i].repeat_interleave(repeats, 0) for t in (key, value))
        # softmax(mask + scale q k^T) v
        scores = torch.baddbmm(mask, query[i], keys.transpose(1, 2), alpha=scale)
        output[i] = scores.softmax(-1) @ values
    return output

"""Linear layers that compute with ternary weights and 8-bit activations, to be trained or packed.

Ma et al., The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits (arXiv 2402.17764),
equations 1 to 3; norms, clamps and gradients as the training code in the authors' FAQ has them
(microsoft/unilm, bitnet, commit 768a3c8).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..kernels.matmul.ternary import PER_BYTE, pack_ternary, ternary_linear

# A mean or maximum below this is raised to it, so that zeros have a finite scale.
_SMALLEST = 1e-5


class RoundClip(torch.autograd.Function):
    """`clip(round(scale x), low, high)`, where halves are rounded to even numbers.

    The gradient is that of `scale x` with a constant scale: it passes straight through rounding and
    clipping, and the scale gets none.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        """The codes, of the shape of x.

        Args:
            ctx: what `backward` reads.
            x: numbers of any shape.
            scale: codes per unit of x, of a shape that broadcasts to that of x.
            low: smallest code.
            high: largest code.
        """
        ctx.save_for_backward(scale)
        return (x * scale).round_().clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The gradient of x: that of the codes times the scale.

        Args:
            ctx: what `forward` has left.
            gradient: gradient of the codes.
        """
        (scale,) = ctx.saved_tensors
        return gradient * scale, None, None, None


def absmean_ternary(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes -1, 0, 1 of a weight, by its mean magnitude (equations 1 to 3).

    Args:
        weight: `[out, in]` of any dtype; the mean is taken in float32.

    Returns:
        Codes float32 `[out, in]`, through which gradients pass, and gamma, one number >= 1e-5: the
        layer computes with `gamma * codes`. A weight is 0 where its magnitude is at most gamma / 2.
    """
    weight = weight.float()
    # gamma is the mean magnitude of the whole tensor, a constant for the gradient (equation 3).
    gamma = weight.detach().abs().mean().clamp(min=_SMALLEST)
    # The codes are RoundClip(W / gamma, -1, 1) (equations 1 and 2).
    return RoundClip.apply(weight, 1 / gamma, -1, 1), gamma


def absmax_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes from -127 to 127 of activations, by the largest magnitude of each token; no zero point.

    Args:
        x: `[..., width]`.

    Returns:
        Codes float32 `[..., width]`, through which gradients pass, and s `[..., 1]`: x is about
        `codes / s`.
    """
    x = x.float()
    # The largest magnitude of a token becomes the code 127.
    s = 127 / x.detach().abs().amax(-1, keepdim=True).clamp(min=_SMALLEST)
    return RoundClip.apply(x, s, -128, 127), s


def rms_normed(x: torch.Tensor, eps: float | None) -> torch.Tensor:
    """Each token divided by its root mean square, without a gain.

    Args:
        x: `[..., width]`.
        eps: number added to the mean square; None returns x as it is.

    Returns:
        float32 `[..., width]`, or x itself.
    """
    if eps is None:
        return x
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps)


class BitLinear(nn.Linear):
    """A linear that rounds its weight to ternary codes and its input to 8 bits at every pass.

    Its weight `[out, in]` is *latent*: training changes it, and only its codes are multiplied.

    Args:
        in_features: number of inputs.
        out_features: number of outputs.
        bias: whether there is a bias.
        norm_eps: epsilon of the root mean square that the input is divided by first; None leaves
            norms to the model.
        kind: `dtype` and `device` of the parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        norm_eps: float | None = None,
        **kind,
    ):
        super().__init__(in_features, out_features, bias, **kind)
        self.norm_eps = norm_eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs `[..., out]` in the dtype of x.

        Between norm and result everything is float32, so that sums of codes are exact unless
        autocast says otherwise.

        Args:
            x: `[..., in]`.
        """
        # The order is norm, 8 bits, product.
        x_codes, s = absmax_int8(rms_normed(x, self.norm_eps))
        codes, gamma = absmean_ternary(self.weight)
        # Whole numbers are summed; both scales are applied afterwards, once an output.
        y = F.linear(x_codes, codes) * (gamma / s)
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, norm_eps={self.norm_eps}"

    @torch.no_grad()
    def to_packed(self) -> "PackedBitLinear":
        """The layer that gives the same results from two bits a weight; it cannot be trained."""
        packed = PackedBitLinear(
            self.in_features, self.out_features, None, self.norm_eps, device="meta"
        )
        codes, gamma = absmean_ternary(self.weight)
        packed.packed = pack_ternary(codes)
        packed.scale = gamma
        packed.bias = self.bias
        return packed


class PackedBitLinear(nn.Module):
    """A `BitLinear` for inference, with two bits a weight.

    The buffer `packed`, uint8 `[out, ceil(in / 4)]`, holds the codes, and `scale`, float32, holds
    gamma. A new layer has neither yet: `BitLinear.to_packed` or a saved folder fills them in.

    Args:
        in_features: number of inputs.
        out_features: number of outputs.
        bias: a parameter `[out]`, or None.
        norm_eps: see `BitLinear`.
        device: device of the buffers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: nn.Parameter | None = None,
        norm_eps: float | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.norm_eps = norm_eps
        width = -(-in_features // PER_BYTE)
        self.register_buffer(
            "packed", torch.zeros(out_features, width, dtype=torch.uint8, device=device)
        )
        self.register_buffer("scale", torch.ones((), device=device))
        self.bias = bias

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs of the `BitLinear`, bit by bit where that computes in float32.

        Args:
            x: `[..., in]`.
        """
        codes, s = absmax_int8(rms_normed(x, self.norm_eps))
        y = ternary_linear(codes.to(torch.int8), self.packed, self.scale, s, self.bias)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, norm_eps={self.norm_eps}"

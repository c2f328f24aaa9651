"""Linear layers that compute with ternary weights and 8-bit activations, to be trained or packed.

Ma et al., The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits (arXiv 2402.17764),
equations 1 to 3; norms, clamps and gradients as the training code in the authors' FAQ has them
(microsoft/unilm, bitnet, commit 768a3c8).
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from ..kernels.matmul.ternary import PER_BYTE, pack_ternary, ternary_linear
from .anatomy import find_stack, linears_of, sublayers
from .config import TERNARY

# Smallest mean or maximum that codes are scaled by.
_SMALLEST = 1e-5

# The norms before attention and before the MLP in blocks of Llama's kind.
_PRE_NORMS = ("input_layernorm", "post_attention_layernorm")


class _RoundClip(torch.autograd.Function):
    """`clip(round(scale x), low, high)`, half to even.

    The gradient is that of `scale x` with a constant scale: straight through rounding and clipping
    (STE), none to the scale.
    """

    @staticmethod
    def forward(ctx, x, scale, low, high):
        ctx.save_for_backward(scale)
        return (x * scale).round_().clamp_(low, high)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None


def absmean_ternary(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes -1, 0, 1 of a weight, by its mean magnitude (equations 1 to 3).

    Args:
        weight: `[out, in]` of any dtype; the mean is taken in float32.

    Returns:
        Codes float32 `[out, in]`, through which gradients pass, and gamma, one number >= 1e-5: the
        layer computes with `gamma * codes`. A weight is 0 where its magnitude is at most gamma / 2.
    """
    weight = weight.float()
    # equation 3: gamma; equations 1 and 2: RoundClip(W / gamma, -1, 1)
    gamma = weight.detach().abs().mean().clamp(min=_SMALLEST)
    return _RoundClip.apply(weight, 1 / gamma, -1, 1), gamma


def absmax_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes from -127 to 127 of activations, by the largest magnitude of each token; no zero point.

    Args:
        x: `[..., width]`.

    Returns:
        Codes float32 `[..., width]`, through which gradients pass, and s `[..., 1]`: x is about
        `codes / s`.
    """
    x = x.float()
    s = 127 / x.detach().abs().amax(-1, keepdim=True).clamp(min=_SMALLEST)
    return _RoundClip.apply(x, s, -128, 127), s


def _normed(x: torch.Tensor, eps: float | None) -> torch.Tensor:
    """`x` in float32, each token divided by its root mean square (no gain); as it is for None."""
    if eps is None:
        return x
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps)


class BitLinear(nn.Linear):
    """A linear whose weight `[out, in]` is *latent*: every pass rounds it to ternary codes, and its
    input to 8 bits.

    Args:
        in_features: inputs.
        out_features: outputs.
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
        """`[..., out]` in the dtype of `x [..., in]`.

        Between norm and result everything is float32, so that sums of codes are exact unless
        autocast says otherwise.
        """
        x_codes, s = absmax_int8(_normed(x, self.norm_eps))
        codes, gamma = absmean_ternary(self.weight)
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
    """A `BitLinear` for inference: codes in `packed`, uint8 `[out, ceil(in / 4)]`, and gamma in
    `scale`, float32. Both are to be filled in.

    Args:
        in_features: inputs.
        out_features: outputs.
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
        """What the `BitLinear` gives, bit by bit where that computes in float32."""
        codes, s = absmax_int8(_normed(x, self.norm_eps))
        y = ternary_linear(codes.to(torch.int8), self.packed, self.scale, s, self.bias)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, norm_eps={self.norm_eps}"


def replace_linears(model: PreTrainedModel, norm: bool) -> None:
    """Put a `BitLinear` with the same weights in place of every linear inside the blocks;
    embeddings and head stay.

    Args:
        model: a model with recognisable blocks, changed in place.
        norm: every layer divides its input by its root mean square, and the norms before attention
            and MLP go: their gains are multiplied into the weights that read them, so that those
            layers are what they were but for rounding. False leaves the model's norms as they are.

    Raises:
        UserError: no recognisable blocks, layers that are ternary already, or norms that are not
            those of Llama's kind.
    """
    name, stack = find_stack(model)
    linears = linears_of(f"{name}.", stack)
    if any(isinstance(linear, BitLinear) for linear in linears.values()):
        raise UserError(f"{type(model).__name__} has ternary layers already; load the model again")
    eps = None
    if norm:
        eps = _absorb_norms(stack)
    for path, linear in linears.items():
        weight = linear.weight
        if isinstance(linear, Conv1D):
            # GPT-2 stores the transpose.
            weight = nn.Parameter(
                weight.detach().T.contiguous(), requires_grad=weight.requires_grad
            )
        layer = BitLinear(weight.shape[1], weight.shape[0], norm_eps=eps, device="meta")
        layer.weight = weight
        layer.bias = linear.bias
        model.set_submodule(path, layer.train(linear.training))
    setattr(model.config, TERNARY, {"norm": norm, "packed": False})


def _absorb_norms(stack: nn.ModuleList) -> float:
    """Multiply the gains of the norms before attention and MLP into the weights that read them, and
    take the norms out.

    Returns:
        The epsilon of the norms.
    """
    for block in stack:
        _check_norms(block)
    eps = stack[0].input_layernorm.variance_epsilon
    for block in stack:
        parts = sublayers(block)
        readers_of = dict(
            zip(_PRE_NORMS, ((parts.query, parts.key, parts.value), parts.first), strict=True)
        )
        for norm, readers in readers_of.items():
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

    Raises:
        UserError: there is none.
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
    """Give a new model the layers that its configuration has under `prunebook_ternary`, to be
    filled from a folder.

    Raises:
        ValueError: an entry that `replace_linears` and `pack` do not write.
    """
    entry = getattr(model.config, TERNARY)
    if not isinstance(entry, dict) or set(entry) != {"norm", "packed"}:
        raise ValueError(f"{TERNARY} in config.json must hold norm and packed")
    replace_linears(model, entry["norm"])
    if entry["packed"]:
        for path, layer in list(model.named_modules()):
            if isinstance(layer, BitLinear):
                size = (layer.in_features, layer.out_features)
                packed = PackedBitLinear(*size, layer.bias, layer.norm_eps, layer.weight.device)
                model.set_submodule(path, packed)
    setattr(model.config, TERNARY, entry)

"""Linears for inference that store no zeros of their weight: 2:4, bitmap and ELL."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..kernels.formats.bitmap import SEGMENT, Bitmap, pack_bitmap
from ..kernels.formats.ell import Ell, pack_ell
from ..kernels.formats.n_of_m import Packed
from ..kernels.matmul.two_four import linear_2_4
from ..kernels.matmul.unstructured import linear_unstructured
from ..kernels.topk.n_of_m import pack_n_of_m

# Name of each form -> the tensors of its packed weight, by their names in `kernels`.
_PARTS = {"bitmap": ("values", "bits", "starts"), "ell": ("values", "deltas")}


class SparseLinear(nn.Module):
    """A linear for inference whose 2:4 weight is packed.

    `values [out, in / 2]` and `codes`, int16 `[out, ceil(in / 16)]`, are as
    `kernels.formats.n_of_m` describes them; `bias` is `[out]` or None. All are buffers, to be
    filled.

    Args:
        in_features: inputs, a multiple of 4.
        out_features: outputs.
        bias: whether there is a bias.
        dtype: dtype of values and bias.
        device: device of the buffers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        kind = {"dtype": dtype, "device": device}
        words = -(-in_features // 16)
        self.register_buffer("values", torch.zeros(out_features, in_features // 2, **kind))
        self.register_buffer(
            "codes", torch.zeros(out_features, words, dtype=torch.int16, device=device)
        )
        zeros = None
        if bias:
            zeros = torch.zeros(out_features, **kind)
        self.register_buffer("bias", zeros)

    @classmethod
    def zeros_like(
        cls, linear: nn.Module, device: torch.device | str | None = None
    ) -> "SparseLinear":
        """A layer, to be filled, that can take the place of `linear`, a Linear or Conv1D; by
        default on its device."""
        rows, width = unpacked_weight(linear).shape
        kind = {"dtype": linear.weight.dtype, "device": device or linear.weight.device}
        return cls(width, rows, linear.bias is not None, **kind).train(linear.training)

    @classmethod
    @torch.no_grad()
    def pack(cls, linear: nn.Module) -> "SparseLinear":
        """The layer that computes what `linear`, a Linear or Conv1D with a 2:4 weight, does.

        Raises:
            UserError: the weight is not 2:4 or not finite.
        """
        packed = pack_n_of_m(unpacked_weight(linear), 2, 4)
        layer = cls.zeros_like(linear, device="meta")
        layer.values = packed.values
        layer.codes = packed.codes
        if linear.bias is not None:
            layer.bias = linear.bias.detach()
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., out]` from `x [..., in]`."""
        return linear_2_4(x, Packed(self.values, self.codes, 2, 4), self.bias)

    def extra_repr(self) -> str:
        return _sizes_of(self)


class UnstructuredLinear(nn.Module):
    """A linear for inference with zeros anywhere, none of them stored.

    Its buffers are the parts of the weight (`values` with `bits` and `starts`, or with `deltas`),
    as `kernels.formats.bitmap` and `kernels.formats.ell` describe them, and `bias`, `[out]` or
    None.

    Args:
        packed: the weight.
        bias: `[out]` in the dtype of the weight, or None.
    """

    def __init__(self, packed: Bitmap | Ell, bias: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = packed.shape
        self.form = "ell"
        if isinstance(packed, Bitmap):
            self.form = "bitmap"
        for name in _PARTS[self.form]:
            self.register_buffer(name, getattr(packed, name))
        self.register_buffer("bias", bias)

    @classmethod
    def zeros_like(cls, linear: nn.Module, form: str, size: int) -> "UnstructuredLinear":
        """A layer, to be filled, that can take the place of `linear`, a Linear or Conv1D.

        Args:
            linear: the dense layer.
            form: `bitmap` or `ell`.
            size: values of the bitmap, or entries a row of the ell.
        """
        rows, width = unpacked_weight(linear).shape
        dtype = linear.weight.dtype
        device = linear.weight.device
        if form == "bitmap":
            values = torch.zeros(size, dtype=dtype, device=device)
            bits = torch.zeros(rows, -(-width // 8), dtype=torch.uint8, device=device)
            segments = -(-width // SEGMENT)
            starts = torch.zeros(rows, segments, dtype=torch.int32, device=device)
            packed = Bitmap(values, bits, starts, width)
        else:
            values = torch.zeros(rows, size, dtype=dtype, device=device)
            deltas = torch.zeros(rows, size, dtype=torch.uint8, device=device)
            packed = Ell(values, deltas, width)
        bias = linear.bias
        if bias is not None:
            bias = torch.zeros_like(bias)
        return cls(packed, bias).train(linear.training)

    @classmethod
    @torch.no_grad()
    def pack(cls, linear: nn.Module) -> "UnstructuredLinear":
        """The layer that computes what `linear`, a Linear or Conv1D, does, in the form that takes
        fewer bytes.

        Raises:
            UserError: the weight is not of float32, float16 or bfloat16.
        """
        weight = unpacked_weight(linear)
        packed = pack_bitmap(weight)
        entries = 0
        if weight.numel():
            entries = weight.count_nonzero(1).max()
        # An ell has a value and a byte for each entry of its fullest row, in every row.
        if entries * len(weight) * (weight.element_size() + 1) < packed.nbytes:
            # of equal sizes the ell, which takes fewer steps
            packed = min(pack_ell(weight), packed, key=lambda form: form.nbytes)
        bias = linear.bias
        if bias is not None:
            bias = bias.detach()
        return cls(packed, bias).train(linear.training)

    @property
    def size(self) -> int:
        """Values of a bitmap, entries a row of an ell."""
        return self.values.shape[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., out]` from `x [..., in]`."""
        form = {"bitmap": Bitmap, "ell": Ell}[self.form]
        parts = {name: getattr(self, name) for name in _PARTS[self.form]}
        return linear_unstructured(x, form(**parts, width=self.in_features), self.bias)

    def extra_repr(self) -> str:
        return f"{_sizes_of(self)}, form={self.form}"


def unpacked_weight(linear: nn.Module) -> torch.Tensor:
    """`[out, in]`, with gradients; GPT-2's Conv1D stores the transpose."""
    if isinstance(linear, Conv1D):
        return linear.weight.T
    return linear.weight


def _sizes_of(layer: nn.Module) -> str:
    """The sizes of a packed layer as the representation of a module shows them."""
    has_bias = layer.bias is not None
    return f"in_features={layer.in_features}, out_features={layer.out_features}, bias={has_bias}"

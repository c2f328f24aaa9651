"""Linears without their zeros: what a pruned model keeps in memory and on disk, and computes with.

A weight is packed in the form that takes the fewest bytes: as 2:4 (9 bits a weight of 16), as a
bitmap, or from about seven zeros in eight as an ELL. On a GPU the dense weights are freed as they
are packed, and decoding reads the packed ones; a pass over more tokens unpacks one layer at a time.
On a CPU every pass does: that saves memory and costs time.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from ..kernels.bitmap import SEGMENT, Bitmap, pack_bitmap
from ..kernels.ell import Ell, pack_ell
from ..kernels.matmul_2_4 import linear_2_4
from ..kernels.matmul_unstructured import linear_unstructured
from ..kernels.n_of_m import pack_n_of_m
from ..kernels.packed import Packed, is_n_of_m
from .anatomy import find_stack, linears_of
from .config import COMPRESSED

LEAST_SPARSITY = 0.4  # to be packed; a bitmap of 16-bit weights saves a third there
# of weights that are not 2:4: in narrower ones, what fills rows up can cost more than zeros do
_FEWEST_INPUTS = 32


class SparseLinear(nn.Module):
    """A linear for inference whose 2:4 weight is packed: `values [out, in / 2]` and `codes`, int16
    `[out, ceil(in / 16)]`, as `kernels.packed` describes them, and `bias [out]` or None. All are
    buffers, to be filled.

    Args:
        in_features: a multiple of 4.
        dtype: of values and bias.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = False, *, dtype=None, device=None
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
        self.register_buffer("bias", torch.zeros(out_features, **kind) if bias else None)

    @classmethod
    def zeros_like(cls, linear: nn.Module, device=None) -> "SparseLinear":
        """What takes the place of `linear`, a Linear or Conv1D, to be filled; by default on its
        device."""
        rows, width = _weight(linear).shape
        kind = {
            "dtype": linear.weight.dtype,
            "device": linear.weight.device if device is None else device,
        }
        return cls(width, rows, linear.bias is not None, **kind).train(linear.training)

    @classmethod
    @torch.no_grad()
    def pack(cls, linear: nn.Module) -> "SparseLinear":
        """The layer that computes what `linear`, a Linear or Conv1D with a 2:4 weight, does.

        Raises:
            UserError: the weight is not 2:4 or not finite.
        """
        packed = pack_n_of_m(_weight(linear), 2, 4)
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
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class UnstructuredLinear(nn.Module):
    """A linear for inference with zeros anywhere, none of them stored. Its buffers are the parts of
    the weight, as `kernels.bitmap` and `kernels.ell` describe them (`values` with `bits` and
    `starts`, or with `deltas`), and `bias` `[out]` or None.

    Args:
        packed: the weight.
        bias: of its dtype.
    """

    def __init__(self, packed: Bitmap | Ell, bias: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = packed.shape
        self.form = "bitmap" if isinstance(packed, Bitmap) else "ell"
        for name in _PARTS[self.form]:
            self.register_buffer(name, getattr(packed, name))
        self.register_buffer("bias", bias)

    @classmethod
    def zeros_like(cls, linear: nn.Module, form: str, size: int) -> "UnstructuredLinear":
        """What takes the place of `linear`, a Linear or Conv1D, to be filled: a 'bitmap' of `size`
        values, or an 'ell' of so many entries a row."""
        rows, width = _weight(linear).shape
        new = {"device": linear.weight.device}
        if form == "bitmap":
            values = torch.zeros(size, dtype=linear.weight.dtype, **new)
            bits = torch.zeros(rows, -(-width // 8), dtype=torch.uint8, **new)
            packed = Bitmap(
                values,
                bits,
                torch.zeros(rows, -(-width // SEGMENT), dtype=torch.int32, **new),
                width,
            )
        else:
            values = torch.zeros(rows, size, dtype=linear.weight.dtype, **new)
            packed = Ell(values, torch.zeros(rows, size, dtype=torch.uint8, **new), width)
        return cls(packed, None if linear.bias is None else torch.zeros_like(linear.bias)).train(
            linear.training
        )

    @classmethod
    @torch.no_grad()
    def pack(cls, linear: nn.Module) -> "UnstructuredLinear":
        """The layer that computes what `linear`, a Linear or Conv1D, does, in the form that takes
        fewer bytes.

        Raises:
            UserError: the weight is not of float32, float16 or bfloat16.
        """
        weight = _weight(linear)
        packed = pack_bitmap(weight)
        entries = weight.count_nonzero(1).max() if weight.numel() else 0
        if entries * len(weight) * (weight.element_size() + 1) < packed.nbytes:
            # of equal ones, that of fewer steps
            packed = min(pack_ell(weight), packed, key=lambda one: one.nbytes)
        return cls(packed, None if linear.bias is None else linear.bias.detach()).train(
            linear.training
        )

    @property
    def size(self) -> int:
        """Values of a bitmap, entries a row of an ell."""
        return self.values.shape[-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., out]` from `x [..., in]`."""
        form = Bitmap if self.form == "bitmap" else Ell
        parts = {name: getattr(self, name) for name in _PARTS[self.form]}
        return linear_unstructured(x, form(**parts, width=self.in_features), self.bias)

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, form={self.form}"


_PARTS = {"bitmap": ("values", "bits", "starts"), "ell": ("values", "deltas")}


@dataclass(frozen=True)
class Compression:
    """What `compress` did. `layers`: each packed linear -> its form ('2:4', 'bitmap' or 'ell') and
    the bytes of its weight before and after. `left`: each linear of the blocks that stays dense ->
    why. `bytes_before`, `bytes_after` and `bits_per_weight` are of the packed ones, zeros counted
    as weights; biases are in none of these."""

    layers: dict[str, tuple[str, int, int]]
    left: dict[str, str]
    bytes_before: int
    bytes_after: int
    bits_per_weight: float

    def to_dict(self) -> dict:
        """JSON-able record."""
        return dataclasses.asdict(self)


def compress(model: nn.Module) -> Compression:
    """Pack every linear of the decoder blocks that is 2:4 or holds 40 % zeros, in place: for
    inference alone.

    Results are equal on a CPU; kernels on a GPU, and what takes the place of GPT-2's Conv1D, sum in
    another order. `save_model` writes the packed form and `load_model` reads it; plain
    `transformers` does not.

    Raises:
        UserError: no recognisable blocks, no linear that is sparse enough, or a model that is
            compressed already; nothing is then changed.
    """
    name, stack = find_stack(model)
    obstacles = {path: _obstacle(linear) for path, linear in linears_of(f"{name}.", stack).items()}
    left = {path: reason for path, reason in obstacles.items() if reason}
    if len(left) == len(obstacles):
        path, reason = next(iter(left.items()))
        raise UserError(
            f"{type(model).__name__} has no linear in its blocks that packing makes smaller "
            f"({path}: {reason}); prune it first"
        )
    layers = {}
    weights = 0
    entry = {}
    for path in [path for path in obstacles if path not in left]:
        # no other name holds it, so that its weight is freed at once
        dense = model.get_submodule(path)
        layer = _pack(dense)
        entry[path] = {"form": "2:4"}
        if isinstance(layer, UnstructuredLinear):
            entry[path] = {"form": layer.form, "size": layer.size}
        layers[path] = entry[path]["form"], dense.weight.nbytes, _stored_bytes(layer)
        weights += dense.weight.numel()
        model.set_submodule(path, layer)
    setattr(model.config, COMPRESSED, entry)
    before, after = (sum(sizes) for sizes in list(zip(*layers.values(), strict=True))[1:])
    return Compression(layers, left, before, after, 8 * after / weights)


def restore(model: nn.Module) -> None:
    """Give a new model the packed layers that its configuration has under `prunebook_packed`, to be
    filled from a folder.

    Raises:
        ValueError: an entry that is none of ours.
    """
    entry = getattr(model.config, COMPRESSED)
    linears = {
        name for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D)
    }
    if (
        not isinstance(entry, dict)
        or not set(entry) <= linears
        or not all(map(_is_ours, entry.values()))
    ):
        raise ValueError(
            f"{COMPRESSED} in config.json does not name linears of the model with their packed "
            "forms"
        )
    for name, form in entry.items():
        dense = model.get_submodule(name)
        layer = (
            UnstructuredLinear.zeros_like(dense, **form)
            if "size" in form
            else SparseLinear.zeros_like(dense)
        )
        model.set_submodule(name, layer)


def _is_ours(form: object) -> bool:
    """Whether a layer's entry in config.json is one that `compress` writes."""
    match form:
        case {"form": "2:4", **rest}:
            return not rest
        case {"form": "bitmap" | "ell", "size": int(size), **rest}:
            return size >= 0 and not rest
    return False


def _pack(linear: nn.Module) -> SparseLinear | UnstructuredLinear:
    """A linear without obstacles in the form that takes the fewest bytes."""
    unstructured = UnstructuredLinear.pack(linear)
    if not is_n_of_m(_weight(linear), 2, 4):
        return unstructured
    return min(SparseLinear.pack(linear), unstructured, key=_stored_bytes)


def _stored_bytes(layer: nn.Module) -> int:
    """Of a packed layer's weight."""
    return sum(part.nbytes for name, part in layer.named_buffers() if name != "bias")


def _weight(linear: nn.Module) -> torch.Tensor:
    """`[out, in]`; GPT-2's Conv1D stores the transpose."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight


def _obstacle(linear: nn.Module) -> str | None:
    """Why a linear cannot be packed, None if it can."""
    if type(linear) not in (nn.Linear, Conv1D):
        return f"a {type(linear).__name__} computes with other weights than it holds"
    weight = _weight(linear)
    if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"weights of {weight.dtype}"
    if not torch.isfinite(weight).all():
        return "weights with NaN or infinity"
    if weight.numel() and is_n_of_m(weight, 2, 4):
        return None
    if weight.shape[1] < _FEWEST_INPUTS or not weight.numel():
        return f"{weight.shape[1]} inputs, too few where weights are not 2:4"
    zeros = 1 - weight.count_nonzero().item() / weight.numel()
    if zeros < LEAST_SPARSITY:
        return f"{100 * zeros:.3g}% of its weights are 0; it takes {LEAST_SPARSITY:.0%}, or 2:4"
    return None

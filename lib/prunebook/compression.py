"""2:4 linears without their zeros: what a pruned model keeps in memory and on disk, and computes with.

On a GPU the dense weights are freed as they are packed, and decoding reads 9 bits a weight instead of 16; a pass over
more than 64 tokens unpacks one layer at a time. On a CPU every pass does: that saves memory and costs time.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .errors import UserError
from .kernels.matmul_2_4 import linear_2_4
from .kernels.n_of_m import pack_n_of_m
from .kernels.packed import Packed, count_broken
from .sublayers import COMPRESSED, find_stack, linears_of


class SparseLinear(nn.Module):
    """A linear for inference whose 2:4 weight is packed: `values [out, in / 2]` and `codes`, int16
    `[out, ceil(in / 16)]`, as `kernels.packed` describes them, and `bias [out]` or None. All are buffers, to be filled.

    Args:
        in_features: a multiple of 4. dtype: of values and bias.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, *, dtype=None, device=None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        kind, words = {"dtype": dtype, "device": device}, -(-in_features // 16)
        self.register_buffer("values", torch.zeros(out_features, in_features // 2, **kind))
        self.register_buffer("codes", torch.zeros(out_features, words, dtype=torch.int16, device=device))
        self.register_buffer("bias", torch.zeros(out_features, **kind) if bias else None)

    @classmethod
    def zeros_like(cls, linear: nn.Module, device=None) -> "SparseLinear":
        """What takes the place of `linear`, a Linear or Conv1D, to be filled; by default on its device."""
        rows, width = _weight(linear).shape
        kind = {"dtype": linear.weight.dtype, "device": linear.weight.device if device is None else device}
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
        layer.values, layer.codes = packed.values, packed.codes
        if linear.bias is not None:
            layer.bias = linear.bias.detach()
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., out]` from `x [..., in]`."""
        return linear_2_4(x, Packed(self.values, self.codes, 2, 4), self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


@dataclass(frozen=True)
class Compression:
    """What `compress` did. `layers`: each packed linear -> bytes of its weight before and after. `left`: each linear
    of the blocks that stays dense -> why. `bytes_before`, `bytes_after` and `bits_per_weight` are of the packed ones,
    zeros counted as weights; biases are in none of these."""

    layers: dict[str, tuple[int, int]]
    left: dict[str, str]
    bytes_before: int
    bytes_after: int
    bits_per_weight: float

    def to_dict(self) -> dict:
        """JSON-able record."""
        return dataclasses.asdict(self)


def compress(model: nn.Module) -> Compression:
    """Pack every linear of the decoder blocks whose weight is 2:4, in place: for inference alone, with equal results.

    `save_model` writes the packed form and `load_model` reads it; plain `transformers` does not. GPT-2's Conv1D become
    linears of the transpose, whose sums may be in another order.

    Raises:
        UserError: no recognisable blocks, no linear that is 2:4, or a model that is compressed already; nothing is then
            changed.
    """
    name, stack = find_stack(model)
    obstacles = {path: _obstacle(linear) for path, linear in linears_of(f"{name}.", stack).items()}
    left = {path: reason for path, reason in obstacles.items() if reason}
    if len(left) == len(obstacles):
        path, reason = next(iter(left.items()))
        raise UserError(
            f"{type(model).__name__} has no 2:4 linear in its blocks ({path}: {reason}); "
            "prune it with pattern='2:4' first"
        )
    layers, weights = {}, 0
    for path in [path for path in obstacles if path not in left]:
        dense = model.get_submodule(path)  # no other name holds it, so that its weight is freed at once
        layer = SparseLinear.pack(dense)
        layers[path] = dense.weight.nbytes, layer.values.nbytes + layer.codes.nbytes
        weights += dense.weight.numel()
        model.set_submodule(path, layer)
    setattr(model.config, COMPRESSED, list(layers))
    before, after = (sum(sizes) for sizes in zip(*layers.values(), strict=True))
    return Compression(layers, left, before, after, 8 * after / weights)


def restore(model: nn.Module) -> None:
    """Give a new model the packed layers that its configuration has under `prunebook_2_4`, to be filled from a folder.

    Raises:
        ValueError: an entry that is none of ours.
    """
    names = getattr(model.config, COMPRESSED)
    linears = {name for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D)}
    if not isinstance(names, list) or not set(map(str, names)) <= linears:
        raise ValueError(f"{COMPRESSED} in config.json does not name linears of the model")
    for name in names:
        model.set_submodule(name, SparseLinear.zeros_like(model.get_submodule(name)))


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
    if not weight.numel() or weight.shape[1] % 4:
        return f"{weight.shape[1]} inputs are no groups of 4"
    if broken := count_broken(weight, 2, 4):
        return f"{broken} of {weight.numel() // 4} groups hold more than 2 weights other than 0"
    return None if torch.isfinite(weight).all() else "weights with NaN or infinity"

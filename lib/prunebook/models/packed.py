"""Pack the linears of a pruned model without their zeros, in memory and on disk.

A weight is packed in the form that takes the fewest bytes: as 2:4 (9 bits a weight of 16), as a
bitmap, or from about seven zeros in eight as an ELL. On a GPU the dense weights are freed as they
are packed, and decoding reads the packed ones; a pass over more tokens unpacks one layer at a time.
On a CPU every pass does: that saves memory and costs time.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from ..kernels.formats.n_of_m import is_n_of_m
from .anatomy import find_stack, linears_of
from .config import COMPRESSED
from .packed_linears import SparseLinear, UnstructuredLinear, unpacked_weight

# Fraction of zeros from which a weight is packed: a bitmap of 16-bit weights saves a third there.
LEAST_SPARSITY = 0.4

# Fewest inputs of a weight that is packed and not 2:4. In narrower ones, what fills up the rows can
# cost more than the zeros do.
_FEWEST_INPUTS = 32


@dataclass(frozen=True)
class Compression:
    """What `compress` did. Biases are in none of these numbers.

    layers: each packed linear -> its form ('2:4', 'bitmap' or 'ell') and the bytes of its weight
        before and after.
    left: each linear of the blocks that stays dense -> why.
    bytes_before: bytes of the weights of all packed linears before.
    bytes_after: bytes of the weights of all packed linears after.
    bits_per_weight: bits for a weight of the packed linears, zeros counted as weights.
    """

    layers: dict[str, tuple[str, int, int]]
    left: dict[str, str]
    bytes_before: int
    bytes_after: int
    bits_per_weight: float

    def to_dict(self) -> dict:
        """JSON-able record."""
        return dataclasses.asdict(self)


def compress(model: PreTrainedModel) -> Compression:
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
        # No other name holds the dense layer, so that its weight is freed at once.
        dense = model.get_submodule(path)
        layer = _pack(dense)
        entry[path] = {"form": "2:4"}
        if isinstance(layer, UnstructuredLinear):
            entry[path] = {"form": layer.form, "size": layer.size}
        layers[path] = (entry[path]["form"], dense.weight.nbytes, _stored_bytes(layer))
        weights += dense.weight.numel()
        model.set_submodule(path, layer)
    setattr(model.config, COMPRESSED, entry)
    bytes_before = sum(before for _, before, _ in layers.values())
    bytes_after = sum(after for _, _, after in layers.values())
    return Compression(layers, left, bytes_before, bytes_after, 8 * bytes_after / weights)


def restore(model: PreTrainedModel) -> None:
    """Give a new model the packed layers that its configuration has under `prunebook_packed`, to be
    filled from a folder.

    Raises:
        ValueError: an entry that `compress` does not write.
    """
    entry = getattr(model.config, COMPRESSED)
    linears = {
        name for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D)
    }
    names_linears = isinstance(entry, dict) and set(entry) <= linears
    if not names_linears or not all(map(_is_written_by_compress, entry.values())):
        raise ValueError(
            f"{COMPRESSED} in config.json does not name linears of the model with their packed "
            "forms"
        )
    for name, form in entry.items():
        dense = model.get_submodule(name)
        if "size" in form:
            layer = UnstructuredLinear.zeros_like(dense, **form)
        else:
            layer = SparseLinear.zeros_like(dense)
        model.set_submodule(name, layer)


def _is_written_by_compress(form: object) -> bool:
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
    if not is_n_of_m(unpacked_weight(linear), 2, 4):
        return unstructured
    return min(SparseLinear.pack(linear), unstructured, key=_stored_bytes)


def _stored_bytes(layer: nn.Module) -> int:
    """Bytes of a packed layer's weight."""
    return sum(part.nbytes for name, part in layer.named_buffers() if name != "bias")


def _obstacle(linear: nn.Module) -> str | None:
    """Why a linear cannot be packed, None if it can."""
    if type(linear) not in (nn.Linear, Conv1D):
        return f"a {type(linear).__name__} computes with other weights than it holds"
    weight = unpacked_weight(linear)
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

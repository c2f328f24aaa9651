"""Parts of a model that can go as a whole, so that what is left is an ordinary, smaller model."""

from collections.abc import Iterable

from torch import nn

from .blocks import find_stack
from .errors import UserError


def block_parameters(model: nn.Module) -> int:
    """Parameters inside the decoder blocks, norms and biases included."""
    _, stack = find_stack(model)
    return sum(parameter.numel() for parameter in stack.parameters())


def count_blocks(total: int, blocks: int | None, sparsity: float | None, most: int) -> int:
    """How many of `total` blocks go: `blocks`, or the fraction `sparsity` of them, rounded down.

    Raises:
        UserError: none, or more than `most`; the nearest possible is named.
    """
    count = blocks if blocks is not None else int(total * sparsity + 1e-9)
    if count < 1:
        raise UserError(f"sparsity {sparsity} is less than one of {total} blocks; the nearest is blocks=1")
    if count > most:
        raise UserError(f"{count} of {total} blocks cannot go; the nearest is blocks={most}")
    return count


def remove_blocks(model: nn.Module, indices: Iterable[int]) -> None:
    """Drop whole decoder blocks in place: what entered a removed block now enters the next one that is left.

    The configuration and the blocks are renumbered (the key-value cache goes by `layer_idx`), so that the result saves
    as an ordinary folder of the same architecture and generates with a cache.

    Args:
        indices: blocks by number from 0, in any order.

    Raises:
        UserError: a number that is no block, or none would be left.
    """
    _, stack = find_stack(model)
    count, gone = len(stack), sorted(set(indices))
    if wrong := [index for index in gone if not 0 <= index < count]:
        raise UserError(f"block {wrong[0]} does not exist; the model has blocks 0 to {count - 1}")
    if len(gone) == count:
        raise UserError(f"removing all {count} blocks leaves no model; leave at least one")
    left = [index for index in range(count) if index not in gone]
    for index in reversed(gone):
        del stack[index]
    model.config.num_hidden_layers = len(left)
    if types := getattr(model.config, "layer_types", None):
        model.config.layer_types = [types[index] for index in left]
    for number, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number

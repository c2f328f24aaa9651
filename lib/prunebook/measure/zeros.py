"""Count the zeros of a model, and check them against a pattern."""

import operator
from dataclasses import dataclass

import torch
from torch import nn

from ..kernels.masking import mask_where
from ..models.anatomy import find_blocks, weight_of
from ..models.ternary import BitLinear, absmean_ternary
from ..sparsity.patterns import (
    NofM,
    Pattern,
    Unstructured,
    check_width,
    count_removed,
    counts_removed,
    make_pattern,
)


def effective_weight(linear: nn.Module) -> torch.Tensor:
    """What a linear multiplies with, `[out, in]`, up to a factor: its weight, or the codes that a
    BitLinear makes of it."""
    return (
        absmean_ternary(linear.weight.data)[0]
        if isinstance(linear, BitLinear)
        else weight_of(linear)
    )


def count_zeros(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Name of each linear inside the blocks -> how many of the weights that it computes with are
    zero, and how many it has."""
    linears = {
        name: linear for block in find_blocks(model) for name, linear in block.linears.items()
    }
    weights = {name: effective_weight(linear) for name, linear in linears.items()}
    return {
        name: (int(mask_where(operator.eq, w, 0).count_nonzero()), w.numel())
        for name, w in weights.items()
    }


@dataclass(frozen=True)
class Verification:
    """What is really zero. `layers` maps a linear's name to its fraction of zeros; `violations`
    names the layers that break the pattern, with how many of their groups do."""

    sparsity: float
    layers: dict[str, float]
    violations: dict[str, int]

    @property
    def holds(self) -> bool:
        return not self.violations


def verify(model, pattern: str | float | Pattern) -> Verification:
    """Count the zeros of all linears inside the decoder blocks against a pattern.

    Args:
        model: any supported causal model.
        pattern: '2:4', a sparsity, or a pattern object. n:m asks at most n
            non-zeros in each group; unstructured asks at least `floor(size * sparsity)` zeros in
            each group.

    Raises:
        UserError: an unreadable pattern, or a model without recognisable blocks.
    """
    if isinstance(pattern, float | int):
        pattern = Unstructured(pattern)
    elif isinstance(pattern, str):
        pattern = make_pattern(pattern=pattern)
    zeros = 0
    layers = {}
    violations = {}
    total = 0
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            zero = weight_of(linear) == 0
            check_width(zero.shape[1], pattern, name)
            count = int(zero.sum())
            layers[name] = count / zero.numel()
            zeros = zeros + count
            total = total + zero.numel()
            if broken := _broken_groups(zero, pattern):
                violations[name] = broken
    if isinstance(pattern, Unstructured) and pattern.scope == "model":
        violations = {} if zeros >= count_removed(total, pattern.sparsity) else {"model": 1}
    return Verification(zeros / total, layers, violations)


def _broken_groups(zero: torch.Tensor, pattern: Pattern) -> int:
    """How many comparison groups of `zero [out, in]` hold fewer zeros than the pattern asks for."""
    if isinstance(pattern, NofM):
        return int((zero.reshape(-1, pattern.m).sum(1) < pattern.m - pattern.n).sum())
    groups = zero if pattern.scope == "row" else zero.reshape(1, -1)
    if pattern.scope == "model":
        return 0
    return int((groups.sum(1).cpu() < counts_removed(pattern, *groups.shape)).sum())

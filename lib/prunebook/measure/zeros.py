"""Count the zeros of a model, and check them against a pattern."""

import operator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..kernels.masking import mask_where
from ..models.anatomy import find_blocks, weight_of
from ..models.ternary_linears import BitLinear, absmean_ternary
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
    """What a linear multiplies with, `[out, in]`, up to a factor.

    That is its weight, or the ternary codes that a BitLinear makes of its weight.
    """
    if isinstance(linear, BitLinear):
        return absmean_ternary(linear.weight.data)[0]
    return weight_of(linear)


def count_zeros(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Name of each linear inside the blocks -> its number of zeros, its number of weights.

    The weights are those that the linear computes with, see `effective_weight`.
    """
    counts = {}
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            weight = effective_weight(linear)
            zeros = mask_where(operator.eq, weight, 0)
            counts[name] = (int(zeros.count_nonzero()), weight.numel())
    return counts


@dataclass(frozen=True)
class Verification:
    """The zeros that a model really has, beside what a pattern asks for.

    sparsity: fraction of zeros in all linears inside the blocks.
    layers: name of each linear -> its fraction of zeros.
    violations: name of each linear that breaks the pattern -> how many of its groups do; `model`
        where the comparison group is the whole model.
    """

    sparsity: float
    layers: dict[str, float]
    violations: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether the pattern is kept everywhere."""
        return not self.violations


def verify(model: PreTrainedModel, pattern: str | float | Pattern) -> Verification:
    """Check the zeros of all linears inside the decoder blocks against a pattern.

    Args:
        model: any supported causal model.
        pattern: '2:4', a sparsity, or a pattern object. n:m asks for at most n non-zeros in each
            group; unstructured asks for at least `floor(size * sparsity)` zeros in each group.

    Raises:
        UserError: an unreadable pattern, or a model without recognisable blocks.
    """
    if isinstance(pattern, float | int):
        pattern = Unstructured(pattern)
    elif isinstance(pattern, str):
        pattern = make_pattern(pattern=pattern)
    layers = {}
    violations = {}
    zeros = 0
    total = 0
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            is_zero = weight_of(linear) == 0
            check_width(is_zero.shape[1], pattern, name)
            count = int(is_zero.sum())
            layers[name] = count / is_zero.numel()
            zeros += count
            total += is_zero.numel()
            broken = _broken_groups(is_zero, pattern)
            if broken:
                violations[name] = broken
    if isinstance(pattern, Unstructured) and pattern.scope == "model":
        # The whole model is one group, so single layers may hold any number of zeros.
        violations = {}
        if zeros < count_removed(total, pattern.sparsity):
            violations["model"] = 1
    return Verification(zeros / total, layers, violations)


def _broken_groups(is_zero: torch.Tensor, pattern: Pattern) -> int:
    """How many comparison groups hold fewer zeros than the pattern asks for.

    Args:
        is_zero: bool `[out, in]`, where a linear's weight is zero.
        pattern: the pattern that is asked for.
    """
    if isinstance(pattern, NofM):
        zeros_per_group = is_zero.reshape(-1, pattern.m).sum(1)
        return int((zeros_per_group < pattern.m - pattern.n).sum())
    if pattern.scope == "model":
        return 0
    groups = is_zero
    if pattern.scope != "row":
        groups = is_zero.reshape(1, -1)
    return int((groups.sum(1).cpu() < counts_removed(pattern, *groups.shape)).sum())

"""Leave some entries of parameters: rows or columns of linears, and members of groups."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def select_entries(parameter: nn.Parameter, dim: int, index: Sequence[int]) -> nn.Parameter:
    """A new parameter of the entries `index` along `dim`; nothing else of the old one stays in
    memory."""
    positions = torch.tensor(index, dtype=torch.int64, device=parameter.device)
    entries = parameter.detach().index_select(dim, positions)
    return nn.Parameter(entries.contiguous(), requires_grad=parameter.requires_grad)


def select_rows(linear: nn.Linear, index: Sequence[int]) -> None:
    """Leave only some outputs of a linear, with their entries of the bias."""
    linear.weight = select_entries(linear.weight, 0, index)
    if linear.bias is not None:
        linear.bias = select_entries(linear.bias, 0, index)
    update_features(linear)


def select_columns(linear: nn.Linear, index: Sequence[int]) -> None:
    """Leave only some inputs of a linear."""
    linear.weight = select_entries(linear.weight, 1, index)
    update_features(linear)


def update_features(linear: nn.Linear) -> None:
    """Let a linear count the inputs and outputs that its weight has now."""
    linear.out_features, linear.in_features = linear.weight.shape


def members_of(groups: Iterable[int], size: int) -> list[int]:
    """The entries of some groups, where each group is `size` entries that follow each other."""
    members = []
    for group in groups:
        members += range(group * size, (group + 1) * size)
    return members

"""Rows and columns that stay of a linear, and members of groups."""

import torch
from torch import nn

from prunebook.models.entries import members_of, select_columns, select_entries, select_rows


def test_rows_go_with_their_entries_of_the_bias():
    linear = nn.Linear(2, 3)
    weight = linear.weight.detach().clone()
    bias = linear.bias.detach().clone()
    select_rows(linear, [2, 0])
    assert torch.equal(linear.weight, weight[[2, 0]])
    assert torch.equal(linear.bias, bias[[2, 0]])
    assert (linear.out_features, linear.in_features) == (2, 2)


def test_columns_leave_the_bias():
    linear = nn.Linear(3, 2)
    weight = linear.weight.detach().clone()
    bias = linear.bias
    select_columns(linear, [])
    assert torch.equal(linear.weight, weight[:, :0])
    assert linear.bias is bias
    assert (linear.out_features, linear.in_features) == (2, 0)


def test_chosen_entries_are_a_new_parameter_of_the_same_kind():
    whole = nn.Parameter(torch.arange(6.0).view(2, 3), requires_grad=False)
    part = select_entries(whole, 1, (2, 0))
    assert part.tolist() == [[2, 0], [5, 3]]
    assert part.is_contiguous()
    assert not part.requires_grad
    assert part.untyped_storage().nbytes() == 4 * 4


def test_members_of_groups():
    assert members_of([2, 0], 3) == [6, 7, 8, 0, 1, 2]
    assert members_of([], 3) == []

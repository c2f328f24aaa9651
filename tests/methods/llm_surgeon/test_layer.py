"""What the removal of parts changes in one linear, and what it leaves."""

import pytest
import torch
from tests.methods.llm_surgeon.studied import studied_linear


def test_a_removed_row_takes_its_bias_along_and_a_column_does_not():
    layer = studied_linear(structure="rows+columns")
    rows = torch.tensor([True, False, False, False])
    columns = torch.tensor([False] * 5 + [True])
    layer.remove_rows_columns(rows, columns, None)
    weight, bias = layer.linear.weight, layer.linear.bias
    assert (weight[0] == 0).all()
    assert bias[0] == 0
    assert (weight[:, 5] == 0).all()
    assert (bias[1:] != 0).all()


@pytest.mark.parametrize("criterion", ["k-obd", "l-obd"])
def test_without_inverses_only_what_is_removed_changes(criterion):
    layer = studied_linear(criterion=criterion)
    before = layer.linear.weight.clone()
    entries = torch.zeros(4, 6, dtype=torch.bool)
    entries[0, :3] = True
    layer.remove_entries(entries, 4)
    assert torch.equal(layer.linear.weight, before.masked_fill(entries, 0))


def test_nothing_to_remove_leaves_the_linear_as_it_was():
    layer = studied_linear()
    before = layer.linear.weight.clone()
    layer.remove_entries(torch.zeros(4, 6, dtype=torch.bool), 4)
    assert torch.equal(layer.linear.weight, before)


@pytest.mark.parametrize("structure", ["elements", "rows+columns"])
def test_what_was_chosen_by_its_costs_is_removed(structure):
    layer = studied_linear(structure=structure)
    rows = torch.tensor([True, False, False, False])
    columns = torch.tensor([True] + [False] * 5)
    parts = rows[:, None] | columns
    if structure == "rows+columns":
        parts = (rows, columns)
    layer.remove(parts, None)
    assert (layer.linear.weight[0] == 0).all()
    assert (layer.linear.weight[:, 0] == 0).all()
    assert (layer.linear.weight[2, 1:] != 0).all()

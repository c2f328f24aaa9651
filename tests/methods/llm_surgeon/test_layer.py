"""One linear in a shot: what is dead, what is zero already, biases, and the three criteria."""

import pytest
import torch

from prunebook.methods.llm_surgeon.fisher import SecondMoment
from prunebook.methods.llm_surgeon.layer import CRITERIA, study


def problem(bias=True, structure="elements", criterion="surgeon"):
    """A linear `[4, 6]` whose row 1 has no gradient and whose input 2 is never there, studied."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(6, 4, bias=bias).requires_grad_(False)
    linear.weight.copy_(torch.randn(4, 6, generator=generator))
    if bias:
        linear.bias.copy_(torch.randn(4, generator=generator))
    # a row of zeros from an earlier shot, though it has a gradient
    linear.weight[3] = 0
    moments = []
    for width, dead in ((6, 2), (4, 1)):
        values = torch.randn(1, 50, width, generator=generator)
        values[..., dead] = 0
        moment = SecondMoment(width, torch.device("cpu"))
        moment.update(values)
        moments.append(moment)
    return study(linear, *moments, structure=structure, criterion=criterion, damping=0.01)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_zeros_go_first_then_the_dead_then_the_others(criterion):
    layer = problem(criterion=criterion)
    assert layer.costs.shape == (4, 6)
    assert (layer.costs[3] == -1).all()
    assert (layer.costs[:3, 2] == 0).all()
    if criterion != "l-obd":
        assert (layer.costs[1] == 0).all()
    assert (layer.costs[[0, 2]][:, [0, 1, 3, 4, 5]] > 0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_rows_and_columns_have_costs_and_a_bias_has_none(bias):
    rows, columns = problem(bias, "rows+columns").costs
    assert (len(rows), len(columns)) == (4, 6)
    # with a bias, the row of zeros is not all zero
    assert rows[3] == -1 if not bias else rows[3] > 0
    assert rows[1] == 0
    assert columns[2] == 0


def test_a_removed_row_takes_its_bias_along_and_a_column_does_not():
    layer = problem(structure="rows+columns")
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
    layer = problem(criterion=criterion)
    before = layer.linear.weight.clone()
    entries = torch.zeros(4, 6, dtype=torch.bool)
    entries[0, :3] = True
    layer.remove_entries(entries, 4)
    assert torch.equal(layer.linear.weight, before.masked_fill(entries, 0))


def test_nothing_to_remove_leaves_the_linear_as_it_was():
    layer = problem()
    before = layer.linear.weight.clone()
    layer.remove_entries(torch.zeros(4, 6, dtype=torch.bool), 4)
    assert torch.equal(layer.linear.weight, before)

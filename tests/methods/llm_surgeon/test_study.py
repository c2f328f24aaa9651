"""Costs of one linear: what is dead, what is zero already, biases, and the three criteria."""

import pytest
from tests.methods.llm_surgeon.studied import studied_linear

from prunebook.methods.llm_surgeon.study import CRITERIA


@pytest.mark.parametrize("criterion", CRITERIA)
def test_zeros_go_first_then_the_dead_then_the_others(criterion):
    layer = studied_linear(criterion=criterion)
    assert layer.costs.shape == (4, 6)
    assert (layer.costs[3] == -1).all()
    assert (layer.costs[:3, 2] == 0).all()
    if criterion != "l-obd":
        assert (layer.costs[1] == 0).all()
    assert (layer.costs[[0, 2]][:, [0, 1, 3, 4, 5]] > 0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_rows_and_columns_have_costs_and_a_bias_has_none(bias):
    rows, columns = studied_linear(bias, "rows+columns").costs
    assert (len(rows), len(columns)) == (4, 6)
    # with a bias, the row of zeros is not all zero
    assert rows[3] == -1 if not bias else rows[3] > 0
    assert rows[1] == 0
    assert columns[2] == 0

"""The best sparsity for a budget, against a search."""

import numpy as np
import pytest
from tests.methods.sparse_scaling_laws.published import LAW, RAW
from tests.refusals import refused_in_one_line

from prunebook.methods.sparse_scaling_laws.optimal_sparsity import (
    dense_cost,
    optimal_sparsity,
    optimal_sparsity_at_cost,
    sparse_cost,
)
from prunebook.methods.sparse_scaling_laws.scaling_law import Law


def test_costs_of_a_final_weight():
    assert [dense_cost(S) for S in (0, 0.5, 0.75, 0.875)] == [1, 2, 4, 8]
    assert [sparse_cost(S) for S in (0, 0.5, 0.75, 0.875)] == [1, 1.375, 2.125, 3.625]


@pytest.mark.parametrize("tokens", [3e10, 1e11, 1e12])
@pytest.mark.parametrize("N", [1e7, 1e8])
def test_the_closed_form_is_the_minimum_of_a_grid(N, tokens):
    C = 6 * N * tokens
    S = np.linspace(0, 0.9999, 20001)
    grid = S[RAW.loss(S, N, C / (6 * N * dense_cost(S))).argmin()]
    found = optimal_sparsity(RAW, N, C)
    assert found == pytest.approx(grid, abs=1e-4)
    assert 0.2 < found < 1
    assert optimal_sparsity_at_cost(RAW, N, C, dense_cost) == pytest.approx(found, abs=1e-6)
    grid = S[RAW.loss(S, N, C / (6 * N * sparse_cost(S))).argmin()]
    assert optimal_sparsity_at_cost(RAW, N, C) == pytest.approx(grid, abs=1e-4)


def test_a_small_budget_is_best_spent_on_a_dense_model():
    assert optimal_sparsity(RAW, 1e9, 6e19) == 0
    assert optimal_sparsity_at_cost(RAW, 1e9, 6e19, dense_cost) == 0
    assert optimal_sparsity(Law(0, 1, 1, 1, 1, 1, 1), [1, 2], 1e9).tolist() == [0, 0]
    best = optimal_sparsity(RAW, 1e8, 6e8 * np.array([1e9, 1e10, 1e11, 1e12]))
    assert (np.diff(best) > 0).all()  # more data favour more zeros


def test_bad_budgets_are_one_line():
    with refused_in_one_line("C holds 0; use"):
        optimal_sparsity(LAW, 1, 0)
    with refused_in_one_line("N holds -1; use"):
        optimal_sparsity_at_cost(LAW, -1, 1)

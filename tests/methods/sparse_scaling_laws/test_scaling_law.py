"""The scaling law: its values, its units, and the best sparsity against a search."""

import math

import numpy as np
import pytest

from prunebook.errors import UserError
from prunebook.methods.sparse_scaling_laws.scaling_law import (
    Law,
    dense_cost,
    optimal_sparsity,
    optimal_sparsity_at_cost,
    sparse_cost,
)

LAW = Law(0.5678, 0.7216, 1.5227, 0.2451, 0.1054, 0.2027, 0.6507)  # like the one published for T5
# the same with N in weights, where it was in millions, and D in tokens
RAW = LAW.in_units(1e-6, 1e-9)
GRID = [
    np.ravel(x)
    for x in np.meshgrid([0, 0.5, 0.75, 0.875], [1.3e6, 5e6, 2e7, 8e7], [1e9, 3e9, 1e10])
]


def test_the_law_by_hand():
    law = Law(3.0, 1.0, 1.0, 0.5, 8.0, 2.0, 0.25)
    assert law.loss(0.5, 4.0, 4.0) == (3 * 0.5 + 1) / 2 + 4 + 0.25
    assert law.loss(np.array([0, 0.5]), 4.0, 4.0).tolist() == [6.25, 5.5]
    assert law.gain(0.5) == pytest.approx((4 / 2.5) ** 2)


def test_both_units_agree():
    S, N, D = GRID
    np.testing.assert_allclose(RAW.loss(S, N, D), LAW.loss(S, N / 1e6, D / 1e9), rtol=1e-12)
    np.testing.assert_allclose(RAW.gain(S), LAW.gain(S), rtol=1e-12)


def test_the_gain_grows_from_one_to_its_limit_and_is_an_equivalent_size():
    S = np.linspace(0, 0.999999, 200)
    gain = LAW.gain(S)
    assert gain[0] == 1
    assert (np.diff(gain) > 0).all()
    assert gain[-1] < LAW.largest_gain == pytest.approx((1 + 0.5678 / 1.5227) ** (1 / 0.2451))
    assert gain[-1] == pytest.approx(LAW.largest_gain, rel=1e-3)
    np.testing.assert_allclose(LAW.loss(S, 3.0, 2.0), LAW.loss(0.0, 3.0 * gain, 2.0), rtol=1e-12)
    assert Law(1, 1, 0, 1, 1, 1, 1).largest_gain == math.inf


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Law(-1, 1, 1, 1, 1, 1, 1), "a_s -1 is not allowed"),
        (lambda: Law(1, 1, 1, 1, 1, 1, math.nan), "c nan is not allowed"),
        (
            lambda: Law(1, 1, 1, 0, 1, 1, 1),
            "b_n 0 is not allowed in a law; use a finite number > 0",
        ),
        (lambda: LAW.loss(1.0, 1, 1), "S holds 1; use"),
        (lambda: LAW.loss(0.5, [1, 0], 1), "N holds 0; use"),
        (lambda: LAW.loss(0.5, 1, math.inf), "D holds inf; use"),
        (lambda: LAW.gain([0.5, -0.1]), "S holds -0.1; use"),
        (lambda: LAW.in_units(0, 1), "of_N holds 0; use"),
        (lambda: optimal_sparsity(LAW, 1, 0), "C holds 0; use"),
        (lambda: optimal_sparsity_at_cost(LAW, -1, 1), "N holds -1; use"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

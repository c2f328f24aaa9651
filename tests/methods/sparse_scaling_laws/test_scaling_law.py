"""The scaling law: its values, its units, and what it refuses."""

import math

import numpy as np
import pytest
from tests.methods.sparse_scaling_laws.published import GRID, LAW, RAW
from tests.refusals import refused_in_one_line

from prunebook.methods.sparse_scaling_laws.scaling_law import Law


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
    ],
)
def test_bad_input_is_one_line(call, message):
    with refused_in_one_line(message):
        call()

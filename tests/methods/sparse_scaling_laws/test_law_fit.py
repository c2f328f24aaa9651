"""The fit of the scaling law: a known law recovered, outliers, the loss by hand, bad input."""

import numpy as np
import pytest
from tests.methods.sparse_scaling_laws.published import GRID, RAW
from tests.refusals import refused_in_one_line

from prunebook.methods.sparse_scaling_laws.law_fit import fit, huber
from prunebook.methods.sparse_scaling_laws.scaling_law import Law


def test_known_coefficients_are_recovered():
    S, N, D = GRID
    found = fit(S, N, D, RAW.loss(S, N, D), starts=4)
    assert found.loss < 1e-16
    for name in ("a_s", "b_s", "c_s", "b_n", "a_d", "b_d", "c"):
        assert getattr(found.law, name) == pytest.approx(getattr(RAW, name), rel=1e-3), name


def test_outliers_move_the_fit_little_and_all_starts_are_reported():
    S, N, D = GRID
    loss = RAW.loss(S, N, D) * np.exp(np.random.default_rng(0).normal(0, 0.002, len(S)))
    loss[7] *= 1.3
    found = fit(S, N, D, loss, starts=5, seed=1)
    assert found == fit(S, N, D, loss, starts=5, seed=1)
    assert found.loss == pytest.approx(huber(found.law, S, N, D, loss))
    assert found.loss <= huber(RAW, S, N, D, loss)
    assert list(found.losses) == sorted(found.losses)
    assert len(found.losses) == 5
    assert found.spread[0] == found.law
    low, high = found.range_of("b_n")
    assert low <= found.law.b_n <= high
    off = np.abs(np.log(found.law.loss(S, N, D) / loss))
    assert off.argmax() == 7
    assert np.delete(off, 7).max() < 0.02


def test_huber_by_hand():
    law = Law(0, 1, 0, 1, 0, 1, 1.0)  # always 1
    assert huber(law, [0, 0], [1, 1], [1, 1], np.exp([0.1, 0.5]), delta=0.2) == pytest.approx(
        (0.1**2 / 2 + 0.2 * (0.5 - 0.1)) / 2
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit([0] * 6, [1] * 6, [1] * 6, [1] * 6), r"have shapes \[6\], .* 7 or more"),
        (
            lambda: fit([0] * 7, [1] * 7, [1] * 7, [1] * 8),
            r"\[7\], \[8\]; use four arrays of one length",
        ),
        (lambda: fit([0] * 7, [1] * 7, [1] * 7, [0] * 7), "loss holds 0; use"),
        (
            lambda: fit([0] * 7, [1] * 7, [1] * 7, [1] * 7, starts=0),
            "starts 0 and delta 0.001 are not allowed",
        ),
        (lambda: fit([0] * 7, [1] * 7, [1] * 7, [1] * 7, delta=0), "delta 0 are not allowed"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with refused_in_one_line(message):
        call()

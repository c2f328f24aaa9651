"""Bounds against known intervals and their verdicts."""

import numpy as np
import pytest

from prunebook.errors import UserError
from prunebook.notebook.bounds import Bound, bound


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    samples = np.random.default_rng(0).normal(5, 2, size=400)
    result = bound(np.mean, samples, at_least=4)
    half = 1.96 * samples.std(ddof=1) / 20
    assert result.estimate == pytest.approx(samples.mean())
    assert result.low == pytest.approx(samples.mean() - half, abs=0.03)
    assert result.high == pytest.approx(samples.mean() + half, abs=0.03)
    assert (result.samples, result.verdict) == (400, "holds")


def test_paired_samples_are_drawn_together():
    first = np.arange(20.0)
    result = bound(lambda a, b: (a - b).mean(), first, first - 1, at_most=1)
    assert (result.estimate, result.low, result.high) == (1, 1, 1)
    assert result.verdict == "tie"


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ({"at_least": 0.9}, "holds"),
        ({"at_least": 1.0}, "tie"),
        ({"at_least": 1.5}, "tie"),
        ({"at_least": 2.1}, "fails"),
        ({"at_most": 2.1}, "holds"),
        ({"at_most": 2.0}, "tie"),
        ({"at_most": 1.5}, "tie"),
        ({"at_most": 0.9}, "fails"),
        ({"at_least": 0.5, "at_most": 2.5}, "holds"),
        ({"at_least": 1.2, "at_most": 2.5}, "tie"),
    ],
)
def test_verdict(limits, verdict):
    assert Bound(1.5, 1.0, 2.0, 20, **limits).verdict == verdict


def test_few_samples_give_no_verdict():
    few = Bound(1.5, 1.0, 2.0, 19, at_least=0)
    assert few.refusal == "19 samples; a verdict takes at least 20"
    with pytest.raises(UserError, match="a bound has no verdict: 19 samples"):
        _ = few.verdict


def test_same_seed_same_interval():
    samples = np.random.default_rng(1).normal(size=30)
    assert bound(np.median, samples, at_most=1) == bound(np.median, samples, at_most=1)


@pytest.mark.parametrize(
    ("samples", "limits", "message"),
    [
        ([[1.0, 2]], {}, "no bound is given; give at_least, at_most, or both"),
        ([], {"at_least": 0}, "samples have the shapes none"),
        ([[1.0, 2], [1.0]], {"at_least": 0}, r"shapes \[2\], \[1\]; needs arrays of one length"),
        ([[]], {"at_least": 0}, r"shapes \[0\]"),
        ([[np.nan, 1.0]], {"at_least": 0}, "the quantity is not finite"),
    ],
)
def test_bound_refuses(samples, limits, message):
    def total(*arrays):
        return float(sum(array.sum() for array in arrays))

    with pytest.raises(UserError, match=message):
        bound(total, *samples, **limits)

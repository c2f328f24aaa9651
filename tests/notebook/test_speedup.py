"""`Speedup`: ratios within rounds, their median and its interval, and what is not believed."""

import math

import numpy as np
import pytest

from prunebook.errors import UserError
from prunebook.notebook.contention import BUSY
from prunebook.notebook.speedup import Speedup, of_rates, of_seconds


def test_the_median_is_of_ratios_within_rounds():
    # The machine slows down from round to round, for both alike.
    found = of_rates([8.0, 4.0, 2.0], [16.0, 8.0, 4.0])
    assert found.ratios == (2.0, 2.0, 2.0)
    assert found.median == 2.0
    disturbed = of_rates(np.array([10.0, 10.0, 1.0]), np.array([15.0, 12.5, 5.25]))
    assert disturbed.ratios == (1.5, 1.25, 5.25)
    assert disturbed.median == 1.5
    assert str(disturbed) == "1.50 times as fast (1.25 to 5.25, 3 rounds)"
    assert str(Speedup((1.5,))) == "1.50 times as fast (1 round)"


@pytest.mark.parametrize(
    ("rounds", "left_out"),
    [
        (1, 0),
        (5, 0),
        (6, 0),
        (8, 0),
        (9, 1),
        (12, 2),
        (23, 6),
        (25, 7),
    ],  # tables of the sign test at 5 %
)
def test_the_interval_leaves_out_rounds_at_both_ends(rounds, left_out):
    ratios = [1.0 + index / 64 for index in range(rounds)]
    shuffled = tuple(np.random.default_rng(0).permutation(ratios).tolist())
    assert Speedup(shuffled).interval == (ratios[left_out], ratios[rounds - 1 - left_out])


@pytest.mark.parametrize(
    ("ratios", "at_least", "verdict"),
    [
        ((1.25, 1.3, 1.5), 1.2, "holds"),
        ((1.1, 1.3, 1.5), 1.2, "tie"),
        ((1.0, 1.1, 1.15), 1.2, "fails"),
        ((1.2, 1.2, 1.2), 1.2, "tie"),  # exactly the bound
        ((1.01,), 1.0, "holds"),
        ((0.97, 0.96, 0.99), 1 / 1.05, "holds"),  # at most 5 % slower
    ],
)
def test_verdicts(ratios, at_least, verdict):
    assert Speedup(ratios).verdict(at_least) == verdict


def test_a_third_above_the_ratio_of_flops_is_believed_and_no_more():
    exactly = Speedup((2.0,), flops_ratio=1.5)  # 4/3 of it
    assert exactly.refusal is None
    assert exactly.verdict() == "holds"
    above = Speedup((math.nextafter(2.0, 3.0),), flops_ratio=1.5)
    assert above.refusal == "not believed: 2.00 times, where the FLOPs allow 1.5"
    with pytest.raises(UserError, match="a speed-up has no verdict: not believed: 2"):
        above.verdict()


def test_it_is_the_median_that_is_not_believed():
    assert Speedup((1.3, 1.3, 9.0), flops_ratio=1.3).refusal is None
    refused = Speedup((1.3, 5.25, 9.0), flops_ratio=1.3)
    assert str(refused) == refused.refusal == "not believed: 5.25 times, where the FLOPs allow 1.3"


def test_without_a_ratio_of_flops_everything_is_believed():
    assert Speedup((5.25,)).refusal is None


def test_a_busy_machine_times_nothing():
    found = of_rates([1.0], [2.0], busy=True, flops_ratio=2.0)
    assert str(found) == found.refusal == BUSY == "machine was busy: not timed"
    with pytest.raises(UserError, match="a speed-up has no verdict: machine was busy: not timed"):
        found.verdict()
    for base, seconds in ((None, [1.0]), ([1.0], None), ([1.0, None], [1.0, 2.0]), ([1.0], [None])):
        assert of_seconds(base, seconds) == Speedup((), busy=True)


def test_seconds_are_told_as_medians():
    found = of_seconds([6.0, 5.0, 8.0], [2.0, 2.5, 1.0], what="prunes")
    assert found == Speedup((3.0, 2.0, 8.0), what="prunes", detail="2 s against 6 s")
    assert of_seconds([0.25], [0.125], unit="ms").detail == "125 ms against 250 ms"


def test_bad_rounds():
    with pytest.raises(
        UserError, match="a speed-up has 1 rounds against 2; time both in every round"
    ):
        of_rates([1.0], [1.0, 2.0])
    with pytest.raises(UserError, match="a speed-up has no rounds; time both things at least once"):
        of_rates([], [])
    for base, rates in (([0.0], [1.0]), ([1.0], [-1.0])):
        with pytest.raises(UserError, match="a speed-up needs rates and times above 0"):
            of_rates(base, rates)

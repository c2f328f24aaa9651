"""Percentiles, rounds, and the order of samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunebook.bench.timing import interleaved, percentile, rounds_for, spread


def test_percentiles_by_hand():
    samples = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [percentile(samples, share) for share in (0, 0.2, 0.5, 0.8, 1)] == pytest.approx(
        [1, 1.8, 3, 4.2, 5]
    )
    assert spread(samples).median == 3
    assert spread([7.0]) == spread([7.0, 7.0, 7.0])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_percentiles_are_those_of_numpy(samples, share):
    import numpy as np

    assert percentile(samples, share) == pytest.approx(
        float(np.quantile(samples, share)), rel=1e-9, abs=1e-6
    )


def test_rounds_fill_the_time_within_bounds():
    assert rounds_for([1e6]) == 3
    assert rounds_for([10_000, 10_000]) == 20
    assert rounds_for([1.0, 2.0]) == 50


def test_samples_are_taken_in_turn():
    log = []

    def sampler(name):
        return lambda: log.append(name) or float(len(log))

    found = interleaved({name: sampler(name) for name in "ABC"}, 2)
    assert "".join(log) == "ABCABC"
    assert found == {"A": [1, 4], "B": [2, 5], "C": [3, 6]}

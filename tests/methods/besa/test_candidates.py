"""Candidate rates, and what a mixture of them can reach."""

import math

import pytest
from tests.methods.besa.explicit import FIVE

from prunebook.methods.besa.candidates import candidate_rates, reachable


def test_candidates():
    assert candidate_rates().tolist() == pytest.approx([1 - i / 100 for i in range(101)], abs=1e-7)


def test_reachable_rates_by_hand():
    assert reachable(candidate_rates()) == pytest.approx((0.3763, 0.6237), abs=1e-4)
    # weight e for 1 and 3/4, weight 1 for the others
    best = (2.5 + 1.75 * (math.e - 1)) / (5 + 2 * (math.e - 1))
    assert reachable(FIVE) == pytest.approx((1 - best, best))

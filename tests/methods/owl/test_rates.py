"""OWL's rates: worked examples, means met to rounding, the official rounding."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.refusals import refused_in_one_line

from prunebook.methods.owl.rates import owl_rates, rounded_down, spread_of
from prunebook.sparsity.patterns import NofM, Unstructured


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ((1, 3, 5), (0.78, 0.70, 0.62)),
        ((0, 0, 0, 4), (0.74, 0.74, 0.74, 0.58)),
        ((2, 2, 2), (0.7, 0.7, 0.7)),
    ],
)
def test_worked_examples(distribution, expected):
    assert owl_rates(distribution, 0.7) == pytest.approx(expected, abs=1e-12)


distributions = st.lists(st.floats(0, 50), min_size=1, max_size=12)


@given(distributions, st.floats(0, 0.999), st.floats(0, 0.6))
def test_the_mean_is_the_target_and_no_rate_leaves_its_range(distribution, sparsity, spread):
    rates = owl_rates(distribution, sparsity, spread)
    assert sum(rates) / len(rates) == pytest.approx(sparsity, abs=1e-12)
    assert min(rates) >= 0
    assert max(rates) <= max(0.99, (1 + sparsity) / 2)
    order = sorted(range(len(rates)), key=distribution.__getitem__)
    # outliers protect
    assert all(rates[a] >= rates[b] - 1e-12 for a, b in itertools.pairwise(order))


@given(distributions, st.floats(0.1, 9), st.floats(-5, 5))
def test_rates_ignore_positive_affine_maps(distribution, factor, shift):
    if max(distribution) - min(distribution) < 1e-3:
        distribution = [0.0, *distribution, 60.0]
    mapped = [factor * value + shift for value in distribution]
    assert owl_rates(mapped, 0.6) == pytest.approx(owl_rates(distribution, 0.6), abs=1e-9)


def test_sizes_weigh_the_mean():
    rates = owl_rates([0, 4], 0.5, 0.1, sizes=[3, 1])
    assert rates == pytest.approx([0.55, 0.35])
    assert (3 * rates[0] + rates[1]) / 4 == pytest.approx(0.5)


def test_a_rate_beyond_its_range_is_clipped_and_the_rest_make_up_for_it():
    assert owl_rates([0, 4], 0.9, 0.2) == pytest.approx([0.99, 0.81])
    assert owl_rates([0, 0, 4], 0.1, 0.3) == pytest.approx([0.15, 0.15, 0.0])


@pytest.mark.parametrize(
    ("arguments", "message"), [((1.0,), "sparsity 1.0"), ((0.5, -0.1), "spread -0.1")]
)
def test_impossible_targets_are_refused(arguments, message):
    with refused_in_one_line(message):
        owl_rates([1, 2], *arguments)


@pytest.mark.parametrize(
    ("target", "given_spread", "spread"),
    [
        (Unstructured(0.5, "model"), None, 0.08),
        (Unstructured(0.5, "model"), 0.2, 0.2),
        (NofM(4, 8), None, 1 / 8),
        (NofM(4, 8), 2.0, 2 / 8),
    ],
)
def test_the_spread_is_a_fraction_of_the_weights(target, given_spread, spread):
    assert spread_of(target, given_spread) == spread


def test_a_rate_of_0_is_the_official_hundredth():
    patterns = rounded_down({"a": 0.0, "b": 0.3}, "row")
    assert patterns == {"a": Unstructured(0.01, "row"), "b": Unstructured(0.3, "row")}

"""Mixed n:m: rounding by largest remainders, the average, ties, and impossible patterns."""

import pytest

from prunebook.errors import UserError
from prunebook.methods.owl.mixed_patterns import mixed_n_of_m
from prunebook.sparsity.patterns import NofM

UNITS = [["a", "b"], ["c"], ["d"]]
SIZES = {"a": 10, "b": 10, "c": 20, "d": 20}


def rates_of(*values):
    return dict(zip("abcd", (values[0], *values), strict=True))


def test_the_largest_remainder_is_rounded_up():
    # densities of 4.2, 4.7 and 3.1 of 8, of which 12 of 24 may stay
    patterns = mixed_n_of_m(rates_of(3.8 / 8, 3.3 / 8, 4.9 / 8), UNITS, SIZES, NofM(4, 8))
    assert patterns == {"a": NofM(4, 8), "b": NofM(4, 8), "c": NofM(5, 8), "d": NofM(3, 8)}


def test_of_equal_remainders_the_first_unit_is_rounded_up():
    patterns = mixed_n_of_m(rates_of(3.5 / 8, 3.5 / 8, 5 / 8), UNITS, SIZES, NofM(4, 8))
    assert [patterns[name].n for name in "abcd"] == [5, 5, 4, 3]


def test_large_units_are_left_where_they_would_exceed_the_average():
    sizes = {"a": 40, "b": 40, "c": 20, "d": 20}
    # 4.6 is first, but one more for two thirds of the weights is too much; 3.5 takes its place
    patterns = mixed_n_of_m(rates_of(3.4 / 8, 4.5 / 8, 4.5 / 8), UNITS, sizes, NofM(4, 8))
    assert [patterns[name].n for name in "abcd"] == [4, 4, 4, 4]


@pytest.mark.parametrize("rate", [0.99, 0.0])
def test_a_group_that_is_emptied_or_whole_is_refused(rate):
    with pytest.raises(UserError, match="spread leaves no weight of a group, or all 4; use a sm"):
        mixed_n_of_m(rates_of(rate, 0.1, 0.1), UNITS, SIZES, NofM(2, 4))

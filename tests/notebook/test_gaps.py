"""Gaps against numbers worked by hand."""

import math

import numpy as np
import pytest

from prunebook.errors import UserError
from prunebook.notebook.gaps import Gap, gap


def test_gap_by_hand():
    lower = np.zeros((2, 4))
    higher = np.array([[1.0, 2, 3, 4], [3, 4, 5, 6]])
    result = gap(lower, higher)
    # differences: windows' means 2 3 4 5 (std sqrt(5/3)), seeds' means 2.5 4.5 (std sqrt(2))
    assert result.mean == 3.5
    assert result.standard_error == pytest.approx(math.sqrt(5 / 3 / 4 + 2 / 2))
    assert result.ratio == pytest.approx(math.exp(3.5))
    assert result.verdict == "holds"


def test_gap_of_one_seed_has_no_seed_term():
    assert gap([[0, 0]], [[1, 3]]).standard_error == pytest.approx(math.sqrt(2) / math.sqrt(2))


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(2.5, "holds"), (2.0, "tie"), (0.0, "tie"), (-2.0, "tie"), (-2.5, "fails")],
)
def test_verdict_turns_at_two_standard_errors(mean, verdict):
    assert Gap(mean, 1.0).verdict == verdict


def test_pairing_removes_what_the_windows_share():
    windows = np.array([[1.0, 9.0, 4.0, 2.0]])
    assert gap(windows, windows + np.array([[0.10, 0.11, 0.09, 0.10]])).verdict == "holds"


@pytest.mark.parametrize(
    ("lower", "higher", "message"),
    [
        ([[1, 2]], [[1, 2, 3]], r"lower \[1, 2\] and higher \[1, 3\]"),
        ([1, 2], [1, 2], r"lower has shape \[2\]"),
        ([[1]], [[2]], r"windows >= 2"),
        ([[1, math.nan]], [[1, 2]], "lower has 1 values that are not finite"),
        ([[1, 2]], [["a", 2]], "higher must be numbers"),
    ],
)
def test_gap_refuses(lower, higher, message):
    with pytest.raises(UserError, match=message):
        gap(lower, higher)

"""Gaps against numbers worked by hand, against known tests, and their verdicts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.notebook.example_gaps import a_gap

from prunebook.errors import UserError
from prunebook.notebook.gaps import gap

# One difference for each of two draws and four windows.
TABLE = np.array([[1.0, 2, 3, 4], [3, 4, 5, 8]])


def test_gap_by_hand():
    result = gap(np.zeros((2, 4)), TABLE)
    # Means: draws 2.5 and 5; windows 2, 3, 4, 6; all 3.75.
    # A = 4 * 2 * 1.25^2 = 12.5; B = 2 * (1.75^2 + 0.75^2 + 0.25^2 + 2.25^2) / 3 = 35 / 6
    # Left of row 1: 0.25, 0.25, 0.25, -0.75, of row 2 the opposite: E = 2 * 0.75 / 3 = 0.5
    spread = 35 / 6 - 0.5
    assert result.mean == 3.75
    assert result.standard_error == pytest.approx(math.sqrt((12.5 + spread) / 8))
    assert result.degrees_of_freedom == pytest.approx(
        (12.5 + spread) ** 2 / (12.5**2 / 1 + spread**2 / 3)
    )
    assert (result.windows, result.draws) == (4, 2)
    assert result.ratio == pytest.approx(math.exp(3.75))


def test_gap_of_one_draw_is_the_paired_t_test():
    lower = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8]])
    higher = lower + np.array([[0.3, -0.1, 0.2, 0.4, 0.1, 0.0, 0.2, 0.3]])
    result = gap(lower, higher)
    paired = stats.ttest_rel(higher[0], lower[0])
    interval = paired.confidence_interval(0.95)
    assert result.mean / result.standard_error == pytest.approx(paired.statistic)
    assert result.degrees_of_freedom == 7
    assert result.mean - result.half_width == pytest.approx(interval.low)
    assert result.mean + result.half_width == pytest.approx(interval.high)


def test_gap_that_only_the_draws_move_is_the_t_test_over_draws():
    # Every window shows the same, so that windows add nothing: B = E = 0.
    draws = np.array([[0.1], [0.4], [0.25]]) * np.ones((1, 16))
    result = gap(np.zeros((3, 16)), draws)
    expected = stats.ttest_1samp(draws[:, 0], 0)
    assert result.mean / result.standard_error == pytest.approx(expected.statistic)
    assert result.degrees_of_freedom == pytest.approx(2)


def test_equal_rows_are_no_draws():
    row = np.array([[0.1, 0.2, 0.3]])
    assert gap(np.zeros((3, 3)), np.repeat(row, 3, axis=0)) == gap(
        np.zeros((1, 3)), row, drawn=False
    )
    assert gap(np.zeros((1, 3)), row, drawn=False).draws == 0


def test_repeated_controls_enter_with_their_own_spread():
    chosen = np.zeros((1, 8))
    controls = np.array([[1.0], [2.0], [6.0]]) * np.ones((1, 8))
    result = gap(chosen, controls, drawn=False)
    assert result.mean == 3
    # The controls alone differ: the standard error of 1, 2 and 6.
    assert result.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    assert result.draws == 3
    # A method that was drawn once is told for this draw only, however many controls there are.
    assert gap(chosen, controls).this_draw_only


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(2.3, "holds"), (2.2, "tie"), (0.0, "tie"), (-2.2, "tie"), (-2.3, "fails")],
)
def test_verdict_turns_at_the_t_quantile(mean, verdict):
    assert a_gap(mean).verdict == verdict


def test_one_draw_is_never_more_than_a_tie():
    one = a_gap(9.0, draws=1)
    assert (one.verdict, one.this_draw_only) == ("tie", True)
    assert str(one).endswith("nats per token, this draw only")
    assert one.of_one_run().verdict == "holds"
    assert a_gap(9.0, draws=0).verdict == "holds"


def test_two_draws_are_never_more_than_a_tie():
    two = a_gap(9.0, draws=2)
    assert (two.verdict, two.of_one_run().verdict) == ("tie", "holds")
    assert str(two).endswith("nats per token, 2 draws only")


def test_few_windows_give_no_verdict():
    few = a_gap(9.0, windows=7)
    assert few.refusal == "7 windows; a verdict takes at least 8"
    with pytest.raises(UserError, match="a gap has no verdict: 7 windows"):
        _ = few.verdict


@pytest.mark.parametrize(
    ("mean", "verdict"),
    # The one-sided quantile at 10 degrees of freedom is 1.812, the margin log(100) = 4.605.
    [(2.7, "holds"), (2.9, "tie"), (-2.7, "holds"), (6.8, "tie"), (6.9, "fails"), (-6.9, "fails")],
)
def test_equivalence_by_two_one_sided_tests(mean, verdict):
    assert a_gap(mean).within(100.0).verdict == verdict


@pytest.mark.parametrize("ratio", [1, 0.5, math.inf, math.nan, "1.1", None])
def test_equivalence_takes_a_ratio_above_1(ratio):
    with pytest.raises(UserError, match=r"within: ratio .* is not allowed; use one above 1"):
        a_gap(0.0).within(ratio)


def test_detectable_gap_is_seen_in_eight_of_ten_repetitions():
    result = a_gap(0.0)
    generator = np.random.default_rng(0)
    # Means around the detectable gap, each with the error and freedom that its repetition finds.
    repeated = result.detectable + generator.standard_normal(20_000)
    errors = np.sqrt(generator.chisquare(10, 20_000) / 10)
    seen = repeated > stats.t.ppf(0.975, 10) * errors
    assert seen.mean() == pytest.approx(0.8, abs=0.03)


def test_record_has_what_the_box_shows():
    record = a_gap(1.0).to_dict()
    assert record["half_width"] == pytest.approx(2.228, abs=1e-3)
    assert record["unit"] == "nats per token"
    assert record["this_draw_only"] is False


def test_pairing_removes_what_the_windows_share():
    windows = np.array([[1.0, 9.0, 4.0, 2.0, 8.0, 3.0, 5.0, 1.0]])
    shift = np.array([[0.10, 0.11, 0.09, 0.10, 0.12, 0.08, 0.10, 0.10]])
    assert gap(windows, windows + shift, drawn=False).verdict == "holds"


@given(
    st.integers(2, 4),
    st.integers(2, 9),
    st.integers(0, 2**32 - 1),
    st.floats(0.1, 10),
    st.floats(-5, 5),
)
def test_gap_scales_and_shifts_with_the_losses(draws, windows, seed, scale, shift):
    generator = np.random.default_rng(seed)
    lower, higher = generator.normal(size=(2, draws, windows))
    result = gap(lower, higher)
    changed = gap(scale * lower, scale * higher + shift)
    assert changed.mean == pytest.approx(scale * result.mean + shift)
    assert changed.standard_error == pytest.approx(scale * result.standard_error)
    assert changed.degrees_of_freedom == pytest.approx(result.degrees_of_freedom)


@given(st.integers(2, 4), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_exchanged_sides_have_the_opposite_gap(draws, windows, seed):
    lower, higher = np.random.default_rng(seed).normal(size=(2, draws, windows))
    result = gap(lower, higher)
    assert gap(higher, lower).mean == -result.mean
    assert gap(higher, lower).half_width == pytest.approx(result.half_width)


@pytest.mark.parametrize(
    ("lower", "higher", "message"),
    [
        ([[1, 2]], [[1, 2, 3]], r"lower \[1, 2\] and higher \[1, 3\]"),
        ([[1, 2], [1, 2]], [[1, 2]], r"lower \[2, 2\] and higher \[1, 2\]"),
        ([1, 2], [1, 2], r"lower has shape \[2\]"),
        ([[1]], [[2]], r"windows >= 2"),
        ([[1, math.nan]], [[1, 2]], "lower has 1 values that are not finite"),
        ([[1, 2]], [["a", 2]], "higher must be numbers"),
        ([[0, 0]], [[800, 800]], r"gap: a difference of 800 ± 0 cannot be judged"),
        ([[0, 0]], [[1e300, -1e300]], "cannot be judged"),
    ],
)
def test_gap_refuses(lower, higher, message):
    with pytest.raises(UserError, match=message):
        gap(lower, higher)


def test_gap_refuses_draws_where_nothing_is_drawn():
    with pytest.raises(UserError, match="gap: 2 draws of lower differ; leave drawn=False out"):
        gap(TABLE, np.zeros((2, 4)), drawn=False)

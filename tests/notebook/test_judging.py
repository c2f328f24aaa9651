"""Verdicts of claims: what a gap or a bound gives, what refuses one, and what the box says."""

import math

import pytest
from tests.notebook.example_gaps import a_gap

from prunebook.errors import UserError
from prunebook.notebook.bounds import Bound
from prunebook.notebook.judging import CLAIM_MIME, judge, judge_speed
from prunebook.notebook.speedup import Speedup
from prunebook.notebook.stated import Statement

PROTOCOL = {"model": "m"}
STATEMENT = Statement("k", "a is better than b", "7", "Table 1", "paper")


def test_claim_records_and_shows_the_gap(shown):
    judge(STATEMENT, "8", a_gap(0.5, 0.1), PROTOCOL)
    recorded = shown[0][CLAIM_MIME]["gap"]
    assert recorded == a_gap(0.5, 0.1).to_dict()
    assert recorded["ratio"] == math.exp(0.5)
    page = shown[0]["text/html"]
    # The t quantile at 10 degrees of freedom is 2.228.
    sampled = "3 draws, 8 windows; 10.0 degrees of freedom"
    assert f"<dd>+0.5000 ± 0.2228 nats per token (95 % interval; {sampled})</dd>" in page


def test_a_tie_tells_which_gap_would_be_seen(shown):
    judge(STATEMENT, "8", a_gap(0.1, 0.1), PROTOCOL)
    # (2.228 + 0.879) * 0.1: the quantiles of 97.5 % and of 80 % at 10 degrees of freedom.
    assert "one of 0.3107 would be seen eight times in ten" in shown[0]["text/html"]


def test_one_draw_is_told_in_the_box(shown):
    judge(STATEMENT, "8", a_gap(9.0, draws=1), PROTOCOL)
    assert shown[0][CLAIM_MIME]["verdict"] == "tie"
    assert (
        "(95 % interval; this draw only, 8 windows; 10.0 degrees of freedom)"
        in shown[0]["text/html"]
    )


def test_claim_records_and_shows_the_bound(shown):
    bound = Bound(1.5, 1.0, 2.0, 20, at_most=1.75)
    judge(STATEMENT, "8", bound, PROTOCOL)
    assert shown[0][CLAIM_MIME]["bound"] == bound.to_dict()
    page = shown[0]["text/html"]
    assert "1.5 (95 % interval 1 to 2; 20 samples); claimed: at most 1.75" in page
    assert "pb-tie" in page


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (a_gap(9.0, windows=7), "7 windows; a verdict takes at least 8"),
        (Bound(1.5, 1.0, 2.0, 19, at_most=3.0), "19 samples; a verdict takes at least 20"),
    ],
)
def test_too_few_samples_leave_a_claim_without_a_verdict(shown, monkeypatch, verdict, reason):
    result = judge(STATEMENT, "8", verdict, PROTOCOL)
    assert (result.verdict, result.ours, result.reason) == ("not_testable", None, reason)
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "quick")
    assert judge(STATEMENT, "8", verdict, PROTOCOL).verdict == "not_judged"


@pytest.mark.parametrize(
    ("verdict", "word"), [(True, "holds"), ("tie", "tie"), (a_gap(-9.0), "undertrained")]
)
def test_what_does_not_hold_without_its_training_says_so(shown, verdict, word):
    result = judge(STATEMENT, "8", verdict, PROTOCOL, "20 of 42,000 steps")
    assert (result.verdict, result.undertrained) == (word, "20 of 42,000 steps")
    assert "<dt>Training</dt><dd>20 of 42,000 steps</dd>" in shown[0]["text/html"]


def test_a_fault_of_training_is_no_excuse_in_a_quick_run(shown, monkeypatch):
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "quick")
    assert judge(STATEMENT, "8", False, PROTOCOL, "20 steps").verdict == "not_judged"


def test_a_speed_may_lack_its_training_too(shown):
    slow = Speedup((0.5, 0.6, 0.7))
    result = judge_speed(STATEMENT, "", slow, PROTOCOL, 1.0, True, "20 of 42,000 steps")
    assert (result.verdict, result.undertrained) == ("undertrained", "20 of 42,000 steps")


@pytest.mark.parametrize("undertrained", ["", 3, False])
def test_missing_training_is_told_as_text(shown, undertrained):
    with pytest.raises(UserError, match=r"claim 'k': undertrained is .*; needs a text"):
        judge(STATEMENT, "8", False, PROTOCOL, undertrained)

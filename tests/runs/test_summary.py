"""The table that closes a run, and how it shows times."""

from pathlib import Path

import pytest

from prunebook.runs.summary import Failure, Outcome, Summary, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (125, "2:05 min"), (3725, "62:05 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_the_table_explains_a_failure_and_adds_up_what_ran():
    failure = Failure("cell 5", "f()", "KeyError", "'no'")
    outcomes = [
        Outcome("alpha", "ran", 20.0, None, 2**30),
        Outcome("b", "failed", 70.5, failure, 2**31),
        Outcome("c", "up to date"),
    ]
    summary = Summary("quick", outcomes, Path("done"))
    assert summary.failed == [outcomes[1]]
    assert str(summary).splitlines() == [
        "alpha  ran            20.0 s  1.0 GiB",
        "b      failed         70.5 s  2.0 GiB",
        "       cell 5: f()",
        "       KeyError: 'no'",
        "       kept: done/b.failed.ipynb, b.log",
        "       rerun: prunebook run b --profile quick",
        "c      up to date",
        "2 pages, 1:30 min together; longest b with 70.5 s; largest b with 2.0 GiB",
    ]


def test_a_process_that_ended_without_a_report_has_no_place():
    failure = Failure("", "", "ProcessEnded", "see the log")
    lines = str(Summary("quick", [Outcome("a", "failed", 1.0, failure)], Path("done"))).splitlines()
    assert lines[1] == "   ProcessEnded: see the log"
    assert str(Summary("quick", [], Path("done"))) == ""

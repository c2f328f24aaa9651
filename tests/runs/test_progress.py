"""What a run shows: pages, cells and times, on a terminal and elsewhere."""

import json

import pytest

from prunebook.errors import UserError
from prunebook.runs import progress as module
from prunebook.runs.progress import Progress, measured_durations
from prunebook.runs.summary import Outcome


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set: `clock(12.5)`."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_lines_of_a_run_without_a_terminal(clock, capsys):
    progress = Progress({"a": 4, "b": 2}, {"a": 10.0, "b": 30.0})
    progress.start("a")
    clock(12.0)
    progress.end(Outcome("a", "ran", 12.0))
    progress.start("b")
    clock(52.0)
    progress.end(Outcome("b", "failed", 40.0))
    assert capsys.readouterr().out.splitlines() == [
        "[1/2] a: running, about 10 s",
        "[1/2] a: ran in 12.0 s (12 s elapsed, about 30 s left)",
        "[2/2] b: running, about 30 s",
        "[2/2] b: failed in 40.0 s (52 s elapsed, about 0 s left)",
    ]


def test_the_line_of_a_terminal_has_pages_cells_and_times(clock):
    progress = Progress({"a": 4, "b": 2, "c": 3}, {"a": 10.0, "b": 30.0, "c": 80.0}, jobs=2)
    progress.start("a")
    progress.start("b")
    progress.cell("a", 2)
    clock(6.0)
    assert progress.line() == (
        "[1/3] a, cell 3 of 4, 6 s of about 10 s | [2/3] b, cell 1 of 2, 6 s of about 30 s | "
        "6 s elapsed, about 54 s left"
    )
    progress.cell("a", 4)
    assert "a, cell 4 of 4," in progress.line()


def test_what_was_never_timed_has_no_expected_time(clock, capsys):
    progress = Progress({"a": 4, "b": 2}, {"a": 10.0})
    progress.start("b")
    clock(100.0)
    assert progress.line() == "[1/2] b, cell 1 of 2, 1:40 min | 1:40 min elapsed"
    progress.end(Outcome("b", "ran", 100.0))
    progress.start("a")
    clock(104.0)
    assert progress.line().endswith("4 s of about 10 s | 1:44 min elapsed, about 6 s left")


def test_a_page_that_is_up_to_date_is_counted_and_not_told(capsys):
    progress = Progress({"a": 4, "b": 2}, {})
    progress.end(Outcome("a", "up to date"))
    progress.start("b")
    assert capsys.readouterr().out == "[2/2] b: running\n"


def test_measured_durations_are_those_of_the_profile(tmp_path):
    assert measured_durations(tmp_path, "quick") == {}
    path = tmp_path / "benchmarks" / "results" / "pages-cpu.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"profile": "quick", "rows": [{"name": "a", "seconds": 3}]}))
    assert measured_durations(tmp_path, "quick") == {"a": 3.0}
    assert measured_durations(tmp_path, "book") == {}
    for content in ("{", "{}", '{"profile": "quick", "rows": [{"name": "a"}]}'):
        path.write_text(content)
        with pytest.raises(UserError, match=r"pages-cpu\.json: no readable record of durations"):
            measured_durations(tmp_path, "quick")

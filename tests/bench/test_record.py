"""Speed-ups of a measured case: of whom, and over whom."""

from tests.bench.fakes import measured, timed

from prunebook.bench.record import record_name
from prunebook.bench.table import fastest_baseline
from prunebook.bench.work import Work


def test_speed_ups_are_of_what_was_timed():
    moved = Work(1000)
    lost = timed("missing", 1.0, moved, status="missing", device=None)
    case = measured(
        "k", {"n": 1}, moved, timed("ours", 20.0, moved), timed("fast", 10.0, moved), lost
    )
    assert case.speedups() == {"fast": 0.5}


def test_speed_ups_are_over_rivals_alone():
    moved = Work(1000)
    form = timed("own", 5.0, moved, role="own")
    control = timed("control", 5.0, moved, role="control")
    case = measured(
        "k", {"n": 1}, moved, timed("ours", 20.0, moved), form, timed("fast", 10.0, moved), control
    )
    assert case.speedups() == {"fast": 0.5}
    assert fastest_baseline(case).name == "fast"
    assert [row.name for row in case.others] == ["own", "control"]


def test_nothing_is_faster_than_ours_that_is_not_timed():
    moved = Work(1000)
    case = measured(
        "k", {"n": 1}, moved, timed("ours", 20.0, moved, status="wrong"), timed("fast", 10.0, moved)
    )
    assert case.speedups() == {}


def test_the_name_of_a_record():
    assert record_name("NVIDIA H100 80GB HBM3") == "kernels-nvidia-h100-80gb-hbm3.json"

"""A call as a whole: the order of importance, the budget, the file after each case, and what is
known already."""

import json

import pytest
from tests.bench.fakes import FakeClock, FakeTimer, case, doubled
from tests.refusals import refused_in_one_line

from prunebook.bench import run as running
from prunebook.bench.case import Provider
from prunebook.bench.measure import LostError
from prunebook.bench.record import read_record, read_records
from prunebook.bench.run import bench_kernels, chosen
from prunebook.bench.table import summary
from prunebook.errors import UserError


def go(root, cases, timer=None, budget=1000.0, step=1.0):
    lines = []
    return bench_kernels(
        root, cases, timer or FakeTimer(), budget, tell=lines.append, clock=FakeClock(step)
    ), lines


def test_the_most_important_come_first_and_only_names_kernels():
    cases = [case("a", 1, rank=2), case("b", 1, rank=0), case("a", 2, rank=0), case("b", 2, rank=1)]
    assert [c.key for c in chosen(cases, ())] == ["b size=1", "a size=2", "b size=2", "a size=1"]
    assert [c.key for c in chosen(cases, ["a"])] == ["a size=2", "a size=1"]
    with pytest.raises(UserError, match=r"--only 'c' is no kernel; use a, b$"):
        chosen(cases, ["c"])


def test_a_record_is_read_as_it_was_written(tmp_path):
    done, lines = go(tmp_path, [case(size=4), case(size=5)])
    assert done.path == tmp_path / "benchmarks/results/kernels-fake-gpu-1.json"
    assert read_record(done.path) == done.record
    assert read_records(tmp_path) == {done.path.name: done.record}
    assert list(done.record.cases) == ["double size=4", "double size=5"]
    (run,) = done.record.runs.values()
    assert (run.copy_gb_s, run.seed, run.machine["device"]) == (3000.0, 0, "Fake GPU 1")
    assert run.versions["torch"]
    assert run.seconds == done.run.seconds > 0
    assert lines == [
        "Fake GPU 1: copy 3,000 GB/s, bfloat16 product 800 TFLOP/s",
        "double size=4: timed",
        "double size=5: timed",
    ]


def test_what_does_not_fit_the_budget_is_left_out_with_the_reason(tmp_path):
    done, _ = go(tmp_path, [case(size=4), case(size=5, seconds=90), case(size=6)], budget=60)
    assert list(done.measured) == ["double size=4", "double size=6"]
    assert done.run.left_out == {"double size=5": "takes up to 90 s, 57 s are left"}
    assert read_record(done.path).runs[done.run.id].left_out == done.run.left_out
    assert "left out: double size=5: takes up to 90 s" in summary(
        done.record, done.measured, done.run
    )
    done, _ = go(tmp_path / "other", [case(size=4)], budget=0.5)
    assert done.run.left_out == {"double size=4": "takes up to 5 s, 0 s are left"}
    assert not done.path.exists()


def test_a_broken_off_run_keeps_what_it_measured_and_the_next_goes_on(tmp_path):
    def interrupted(operands):
        raise KeyboardInterrupt

    first = case(size=4)
    second = case(size=5)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, [first, case(size=5, providers=[Provider("ours", interrupted)])])
    (path,) = (tmp_path / "benchmarks/results").iterdir()  # and no temporary file
    assert list(read_record(path).cases) == [first.key]
    done, _ = go(tmp_path, [first, second])
    assert (done.known, done.measured) == ((first.key,), (second.key,))
    assert list(done.record.cases) == [first.key, second.key]


def test_other_sources_measure_again_and_keep_the_rest_under_their_run(tmp_path, monkeypatch):
    first = case(size=4)
    second = case(size=5)
    before, _ = go(tmp_path, [first, second])
    monkeypatch.setattr(running, "source_hash", lambda: "changed")
    monkeypatch.setattr(running, "_now", lambda: "2026-11-28T00:00:00+00:00")
    after, _ = go(tmp_path, [first])
    assert after.measured == (first.key,)
    runs = {key: known.run for key, known in after.record.cases.items()}
    assert runs == {first.key: after.run.id, second.key: before.run.id}
    assert set(after.record.runs) == set(runs.values())
    again, _ = go(tmp_path, [first, second])
    assert set(again.record.runs) == {after.run.id}  # the same second of the same sources


def test_wrong_and_failed_are_told(tmp_path):
    wrong = Provider("ours", lambda operands: operands["x"])
    absent = case("absent", providers=[Provider("ours", doubled), wrong])
    broken = case("broken", providers=[Provider("ours", lambda operands: operands["y"])])
    done, lines = go(tmp_path, [case("bad", providers=[wrong]), absent, broken])
    assert [(key, row.status) for key, row in done.wrong] == [
        ("bad size=8", "wrong"),
        ("absent size=8", "wrong"),
        ("broken size=8", "failed"),
    ]
    assert lines[1].startswith("bad size=8: error")
    again, _ = go(tmp_path, [case("bad")])
    assert again.measured == ("bad size=8",)  # what was not timed is not known
    assert again.wrong == []


def test_operands_that_cannot_be_made_are_a_failure(tmp_path):
    def too_large(operands):
        raise RuntimeError("out of memory")

    bad = case("big")
    object.__setattr__(bad, "reference", too_large)
    done, _ = go(tmp_path, [bad, case(size=4)])
    assert done.record.cases["big size=8"].ours.reason == "operands or reference: out of memory"
    assert done.record.cases["big size=8"].ours.role == "own"
    assert "double size=4" in done.measured


def test_after_a_device_is_lost_while_sampling_nothing_is_tried_and_all_is_told(tmp_path):
    def breaks():
        timer.broken = True
        raise RuntimeError("launch failed")

    timer = FakeTimer({"torch": breaks})
    done, _ = go(tmp_path, [case(size=4), case(size=5)], timer)
    assert done.measured == ("double size=4",)
    at = "the device was lost at double size=4: sampling torch: illegal memory access"
    assert done.run.left_out == {"double size=5": at}
    assert [row.status for _, row in done.wrong] == ["failed"]
    assert read_record(done.path) == done.record
    assert summary(done.record, done.measured, done.run).splitlines() == [
        "failed: double size=4: ours: sampling torch: illegal memory access",
        f"left out: double size=5: {at}",
    ]


def test_a_device_that_is_lost_after_a_case_keeps_its_times(tmp_path):
    class Losing(FakeTimer):
        def release(self):
            raise LostError("illegal memory access")

    done, _ = go(tmp_path, [case(size=4), case(size=5)], Losing())
    assert done.record.cases["double size=4"].ours.status == "timed"
    at = "the device was lost after double size=4: illegal memory access"
    assert (
        read_record(done.path).runs[done.run.id].left_out
        == done.run.left_out
        == {"double size=5": at}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content.update(version=2),
            r"kind and version \('prunebook-kernels', 2\) are not",
        ),
        (lambda content: content["cases"][0].update(run="none"), "is no readable record: KeyError"),
        (lambda content: content["cases"][0].update(rows=[]), "is no readable record: IndexError"),
        (
            lambda content: content["cases"][0]["rows"][0].update(status="fine"),
            "status 'fine' is not one of timed, wr",
        ),
        (
            lambda content: content["cases"][0]["rows"][0].update(role="x"),
            "role 'x' is not one of rival, own, control",
        ),
        (lambda content: content["runs"][0].pop("seed"), "is no readable record: TypeError"),
    ],
)
def test_another_record_is_refused_in_one_line(tmp_path, change, message):
    done, _ = go(tmp_path, [case()])
    content = json.loads(done.path.read_text())
    change(content)
    done.path.write_text(json.dumps(content))
    with refused_in_one_line(message):
        go(tmp_path, [case()])

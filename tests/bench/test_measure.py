"""Who is checked, who is timed, in which mode: on a device whose times are given."""

import weakref
from dataclasses import replace

import pytest
import torch
from tests.bench.fakes import RUN, FakeStage, FakeTimer, case, doubled

from prunebook.bench.case import MissingError, Provider, relative_error, share_different
from prunebook.bench.measure import LostError, measure
from prunebook.bench.record import CONTROL, OWN


def wrong(operands):
    return operands["x"] * 2 + 0.5


def raises(operands):
    raise RuntimeError("out of memory\nand more")


def lacking(operands):
    raise MissingError("torch has no cuSPARSELt here")


def timed_names(timer):
    return {asked[1] for asked in timer.asked if asked[0] in ("stage", "device", "wall")}


def test_a_row_has_times_rates_and_shares():
    timer = FakeTimer({"ours": 20.0, "torch": 40.0})
    ours, torch_row = measure(case(size=10**6), timer, 0, RUN)
    assert (ours.status, ours.mode, ours.copies, ours.rounds) == ("timed", "graph", 6, 50)
    assert (ours.device.median, ours.wall.median) == (20.0, 27.0)
    assert ours.gb_s == pytest.approx(8e6 / 20e-6 / 1e9)
    assert ours.of_copy == pytest.approx(ours.gb_s / 3000)
    assert torch_row.of_gemm == pytest.approx(1e6 / 40e-6 / 1e12 / 800)
    assert ours.first_call > 0


def test_rounds_count_all_copies_of_a_graph():
    graph, eager = (
        measure(case(), FakeTimer({"ours": 1e3, "torch": 1e3}, uncapturable), 0, RUN)[0]
        for uncapturable in ((), ("ours", "torch"))
    )
    assert (graph.rounds, eager.rounds) == (33, 50)  # of 6 and of 1 ms each


def test_samples_of_device_and_wall_are_interleaved():
    timer = FakeTimer({"ours": 1e5, "torch": 1e5})
    measure(case(), timer, 0, RUN)
    device = [asked[1] for asked in timer.asked if asked[0] == "device"][-6:]
    wall = [asked[1] for asked in timer.asked if asked[0] == "wall"]
    assert device == wall == ["ours", "torch"] * 3


def test_a_wrong_kernel_is_never_timed_nor_is_anyone_beside_it():
    timer = FakeTimer()
    ours, rival = measure(
        case(providers=[Provider("ours", wrong), Provider("torch", doubled)]), timer, 0, RUN
    )
    assert (ours.status, ours.error, ours.device) == ("wrong", pytest.approx(0.5), None)
    assert ours.reason == "error 0.5 is above 0"
    assert (rival.status, rival.reason) == ("untimed", "ours is not right")
    assert timed_names(timer) == set()


def test_a_form_for_the_device_that_is_wrong_is_not_timed_either():
    timer = FakeTimer()
    ours, _ = measure(
        case(providers=[Provider("ours", doubled, device=wrong), Provider("torch", doubled)]),
        timer,
        0,
        RUN,
    )
    assert ours.status == "wrong"
    assert timed_names(timer) == set()


def test_not_a_number_is_wrong():
    nan = Provider("ours", lambda operands: operands["x"] * float("nan"))
    (ours,) = measure(case(providers=[nan]), FakeTimer(), 0, RUN)
    assert ours.status == "wrong"


def test_baselines_that_are_wrong_missing_or_failing_leave_the_others():
    timer = FakeTimer()
    providers = [
        Provider("ours", doubled),
        Provider("wrong", wrong),
        Provider("lacking", doubled, prepare=lacking),
        Provider("failing", raises),
        Provider("loose", wrong, allowed=0.6, note="rounds"),
    ]
    rows = {row.name: row for row in measure(case(providers=providers), timer, 0, RUN)}
    assert {name: row.status for name, row in rows.items()} == {
        "ours": "timed",
        "wrong": "wrong",
        "lacking": "missing",
        "failing": "failed",
        "loose": "timed",
    }
    assert rows["lacking"].reason == "torch has no cuSPARSELt here"
    assert rows["failing"].reason == "RuntimeError: out of memory"
    assert rows["loose"].note == "rounds"
    assert timed_names(timer) == {"ours", "loose"}


@pytest.mark.parametrize(
    ("us", "uncapturable", "captures", "modes"),
    [
        (20.0, (), True, ["graph", "graph"]),
        (1e6, (), True, ["graph", "graph"]),
        (20.0, ("ours",), True, ["eager", "graph"]),
        (20.0, ("torch",), True, ["graph", "eager"]),
        (20.0, (), False, ["graph", "eager"]),
    ],
)
def test_whatever_a_graph_can_hold_is_timed_in_one(us, uncapturable, captures, modes):
    timer = FakeTimer({"ours": us, "torch": 5.0}, uncapturable)
    providers = [Provider("ours", doubled), Provider("torch", doubled, captures=captures)]
    assert [row.mode for row in measure(case(providers=providers), timer, 0, RUN)] == modes


def test_what_a_graph_could_not_hold_is_freed_before_it_is_staged_again(monkeypatch):
    alive = []
    seen = []

    class Watched(FakeStage):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            seen.append([stage().mode for stage in alive if stage()])
            alive.append(weakref.ref(self))

    monkeypatch.setattr("tests.bench.fakes.FakeStage", Watched)
    timer = FakeTimer(uncapturable=("ours",))
    measure(case(providers=[Provider("ours", doubled)]), timer, 0, RUN)
    assert seen == [[], []]
    assert [asked for asked in timer.asked if asked[0] != "device"][:3] == [
        ("stage", "ours", True),
        ("release",),
        ("stage", "ours", False),
    ]


def test_controls_are_called_and_timed_but_compared_with_nothing():
    control = Provider("floor", lambda operands: None, role=CONTROL)
    rows = measure(
        case(providers=[Provider("ours", doubled), control, Provider("form", doubled, role=OWN)]),
        FakeTimer(),
        0,
        RUN,
    )
    assert [(row.role, row.status, row.error, row.allowed) for row in rows] == [
        (OWN, "timed", 0, 0),
        (CONTROL, "timed", None, None),
        (OWN, "timed", 0, 0),
    ]


def failing_after(calls, timer=None):
    """A time that is told `calls` times, then fails, and takes the device with it if it is
    given."""
    left = [calls]

    def time():
        left[0] -= 1
        if left[0] < 0:
            if timer:
                timer.broken = True
            raise RuntimeError("out of memory")
        return 10.0

    return time


@pytest.mark.parametrize("calls", [0, 2])
def test_who_fails_while_sampled_leaves_the_others(calls):
    timer = FakeTimer({"ours": 10.0, "torch": failing_after(calls)})
    ours, rival = measure(case(), timer, 0, RUN)
    assert (ours.status, ours.rounds) == ("timed", 50)
    assert (rival.status, rival.reason, rival.device) == ("failed", "sampling: out of memory", None)


def test_beside_ours_that_fails_while_sampled_or_staged_nobody_is_timed(monkeypatch):
    ours, rival = measure(case(), FakeTimer({"ours": failing_after(1)}), 0, RUN)
    assert (ours.status, ours.reason) == ("failed", "sampling: out of memory")
    assert (rival.status, rival.reason) == ("untimed", "ours failed")

    class Full(FakeTimer):
        def stage(self, provider, operands, written, graph):
            self.asked.append(("stage", provider.name))
            raise RuntimeError("no room")

    timer = Full()
    ours, rival = measure(case(), timer, 0, RUN)
    assert (ours.status, ours.reason) == ("failed", "staging: no room")
    assert (rival.status, rival.reason) == ("untimed", "ours failed")
    assert timed_names(timer) == {"ours"}


def test_a_device_that_is_lost_ends_it_and_says_at_what():
    def breaks(operands):
        timer.broken = True
        raise RuntimeError("launch failed")

    timer = FakeTimer()
    with pytest.raises(LostError, match=r"^calling ours: illegal memory access$"):
        measure(case(providers=[Provider("ours", breaks)]), timer, 0, RUN)
    timer = FakeTimer()
    with pytest.raises(LostError, match=r"^operands or reference: illegal"):
        measure(replace(case(), reference=breaks), timer, 0, RUN)
    timer = FakeTimer()
    timer.times = {"torch": failing_after(3, timer)}
    with pytest.raises(LostError, match=r"^sampling torch: illegal"):
        measure(case(), timer, 0, RUN)


def test_each_call_gets_operands_as_they_were_made():
    seen = []

    def in_place(operands):
        seen.append(operands["x"].clone())
        return operands["x"].mul_(2)

    providers = [Provider("ours", in_place, device=in_place), Provider("torch", in_place)]
    rows = measure(case(providers=providers, written=("x",)), FakeTimer(), 3, RUN)
    assert [row.error for row in rows] == [0, 0]
    assert all(torch.equal(x, seen[0]) for x in seen)


def test_errors():
    assert share_different(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 0])) == 0.5
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_error(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")

"""Who is checked, who is timed, in which mode: on a device whose times are given."""

import pytest
import torch
from fakes import RUN, FakeTimer, case, doubled

from prunebook.bench.case import MissingError, Provider, relative_error, share_different
from prunebook.bench.measure import LostError, measure


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


def test_samples_of_device_and_wall_are_interleaved():
    timer = FakeTimer({"ours": 1e5, "torch": 1e5})
    measure(case(), timer, 0, RUN)
    device = [asked[1] for asked in timer.asked if asked[0] == "device"][-6:]
    wall = [asked[1] for asked in timer.asked if asked[0] == "wall"]
    assert device == wall == ["ours", "torch"] * 3


def test_a_wrong_kernel_is_never_timed_nor_is_anyone_beside_it():
    timer = FakeTimer()
    ours, rival = measure(case(providers=[Provider("ours", wrong), Provider("torch", doubled)]), timer, 0, RUN)
    assert (ours.status, ours.error, ours.device) == ("wrong", pytest.approx(0.5), None)
    assert ours.reason == "error 0.5 is above 0"
    assert (rival.status, rival.reason) == ("untimed", "ours is not right")
    assert timed_names(timer) == set()


def test_a_form_for_the_device_that_is_wrong_is_not_timed_either():
    timer = FakeTimer()
    ours, _ = measure(
        case(providers=[Provider("ours", doubled, device=wrong), Provider("torch", doubled)]), timer, 0, RUN
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
        Provider("ours", doubled), Provider("wrong", wrong), Provider("lacking", doubled, prepare=lacking),
        Provider("failing", raises), Provider("loose", wrong, allowed=0.6, note="rounds"),
    ]  # fmt: skip
    rows = {row.name: row for row in measure(case(providers=providers), timer, 0, RUN)}
    assert {name: row.status for name, row in rows.items()} == {
        "ours": "timed", "wrong": "wrong", "lacking": "missing", "failing": "failed", "loose": "timed",
    }  # fmt: skip
    assert rows["lacking"].reason == "torch has no cuSPARSELt here"
    assert rows["failing"].reason == "RuntimeError: out of memory"
    assert rows["loose"].note == "rounds"
    assert timed_names(timer) == {"ours", "loose"}


@pytest.mark.parametrize(
    ("us", "uncapturable", "captures", "modes"),
    [
        (49.0, (), True, ["graph", "graph"]),
        (50.0, (), True, ["eager", "eager"]),
        (20.0, ("ours",), True, ["eager", "eager"]),
        (20.0, ("torch",), True, ["graph", "eager"]),
        (20.0, (), False, ["graph", "eager"]),
    ],
)
def test_short_kernels_and_their_baselines_are_timed_in_graphs(us, uncapturable, captures, modes):
    timer = FakeTimer({"ours": us, "torch": 5.0}, uncapturable)
    providers = [Provider("ours", doubled), Provider("torch", doubled, captures=captures)]
    assert [row.mode for row in measure(case(providers=providers), timer, 0, RUN)] == modes


def test_a_device_that_is_lost_ends_it():
    class Lost(FakeTimer):
        def settle(self):
            raise LostError("illegal memory access")

    with pytest.raises(LostError):
        measure(case(providers=[Provider("ours", raises)]), Lost(), 0, RUN)


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

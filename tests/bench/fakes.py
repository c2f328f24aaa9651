"""A device without a clock: times are given, and what is asked of it is written down."""

from dataclasses import replace

import torch

from prunebook.bench.case import Case, Provider
from prunebook.bench.measure import CaptureError, LostError
from prunebook.bench.record import Measured, Row, Run, Spread
from prunebook.bench.work import Work


class FakeTimer:
    """`times`: provider -> microseconds a call on the device, or what tells them; the wall clock
    adds 7. `asked` is the log."""

    name = "cpu"

    def __init__(self, times=None, uncapturable=(), device="Fake GPU 1"):
        self.times = times or {}
        self.uncapturable = uncapturable
        self.device = device
        self.asked = []
        self.broken = False  # a device that is lost

    def stage(self, provider, operands, written, graph):
        self.asked.append(("stage", provider.name, graph))
        stage = FakeStage(self, provider.name, "graph" if graph else "eager")
        if graph and provider.name in self.uncapturable:
            raise CaptureError("no")
        return stage

    def settle(self):
        if self.broken:
            raise LostError("illegal memory access")

    def release(self):
        self.settle()
        self.asked.append(("release",))

    def clocks(self):
        return {"sm_mhz": 1980.0}

    def machine(self):
        return {"device": self.device, "driver": "1"}

    def ceilings(self):
        return 3000.0, 800.0


class FakeStage:
    def __init__(self, timer, name, mode):
        self.timer = timer
        self.name = name
        self.mode = mode
        self.copies = 6 if mode == "graph" else 1

    def device(self):
        self.timer.asked.append(("device", self.name))
        time = self.timer.times.get(self.name, 10.0)
        return time() if callable(time) else time

    def wall(self):
        self.timer.asked.append(("wall", self.name))
        return self.timer.times.get(self.name, 10.0) + 7


class FakeClock:
    """Seconds that pass by `step` each time it is read."""

    def __init__(self, step=1.0):
        self.now = 0.0
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now


def doubled(operands):
    return operands["x"] * 2


def case(kernel="double", size=8, providers=None, **options):
    """Doubling a vector: bytes and operations as given by its size."""
    return Case(
        kernel,
        {"size": size},
        Work(8 * size, size),
        lambda generator: {"x": torch.rand(size, generator=generator)},
        doubled,
        lambda result, truth: (result - truth).abs().max().item(),
        providers or [Provider("ours", doubled), Provider("torch", doubled)],
        **options,
    )


RUN = Run(
    id="r1",
    date="2026-11-27T10:00:00+00:00",
    machine={"device": "Fake GPU 1", "driver": "1"},
    versions={"torch": "2.11.0", "triton": "3.6.0"},
    source="abc",
    commit="1234567",
    seed=0,
    budget=480.0,
    seconds=12.5,
    copy_gb_s=3000.0,
    gemm_tflop_s=800.0,
    left_out={"sparsegpt rows=4096": "takes up to 60 s, 3 s are left"},
)


def timed(name, us, work, **values):
    spread = Spread(us, 0.9 * us, 1.2 * us)
    gb_s = work.bytes / us / 1e3
    tflop_s = work.flop / us / 1e6
    row = Row(
        name,
        "timed",
        error=0.0,
        allowed=0.0,
        first_call=1.5,
        mode="graph",
        copies=6,
        rounds=50,
        device=spread,
        wall=Spread(us + 40, us + 30, us + 50),
        gb_s=gb_s,
        tflop_s=tflop_s,
        of_copy=gb_s / 3000,
        of_gemm=tflop_s / 800,
    )
    return replace(row, **values)


def measured(kernel, shape, work, *rows, run="r1", **settings):
    key = " ".join([kernel, *(f"{name}={value}" for name, value in {**shape, **settings}.items())])
    return Measured(
        key,
        kernel,
        shape,
        settings,
        "bfloat16",
        work.bytes,
        work.flop,
        run,
        "2026-11-27T10:00:05+00:00",
        {"sm_mhz": 1980.0},
        rows,
    )

"""Measure a case: check everyone against the reference first, then time those who are right, in turn."""

import time
from dataclasses import replace
from typing import Any, Protocol

import torch

from ..errors import first_line
from .case import Case, MissingError, Operands, Provider, copied
from .record import FAILED, MISSING, TIMED, UNTIMED, WRONG, Row, Run
from .timing import interleaved, rounds_for, spread

GRAPH_BELOW = 50.0  # microseconds a call; the gaps between launches would show in what is shorter
_WALL_ROUNDS = 10


class CaptureError(Exception):
    """A CUDA graph cannot hold this implementation."""


class LostError(Exception):
    """The device no longer answers: nothing more can be measured in this process."""


class Stage(Protocol):
    """A provider ready to be timed; samples are microseconds a call."""

    mode: str
    copies: int

    def device(self) -> float: ...

    def wall(self) -> float: ...


class Timer(Protocol):
    """The device and its clocks."""

    name: str

    def stage(self, provider: Provider, operands: Operands, written: tuple[str, ...], graph: bool) -> Stage:
        """Make ready to time; raises `CaptureError` if a graph is asked for and cannot hold it."""

    def settle(self) -> None:
        """Wait for the device; raises `LostError` if it no longer answers."""

    def clocks(self) -> dict[str, float] | None:
        """Clocks, power and temperature now."""

    def machine(self) -> dict[str, Any]:
        """What the device is; `device` names it."""

    def ceilings(self) -> tuple[float, float]:
        """GB/s of a copy, read and written together, and TFLOP/s of a bfloat16 product, measured now."""

    def release(self) -> None:
        """Free what the last case took."""


def measure(case: Case, timer: Timer, seed: int, run: Run) -> tuple[Row, ...]:
    """The rows of a case, in the order of its providers.

    A wrong implementation is never timed, and beside a wrong one of ours nobody is.

    Raises:
        LostError: the device no longer answers.
    """
    operands = case.make(torch.Generator(timer.name).manual_seed(seed))
    truth = case.reference(copied(operands))
    rows = {provider.name: _checked(case, provider, operands, truth, timer) for provider in case.providers}
    ours = case.providers[0].name
    if rows[ours].status != UNTIMED:  # which stands for right, so far
        return tuple(replace(row, reason=row.reason or "ours is not right") for row in rows.values())
    stages = {}
    for provider in case.providers:
        if rows[provider.name].status == UNTIMED:
            try:
                stages[provider.name] = _staged(case, provider, operands, timer, stages.get(ours))
            except Exception as error:
                timer.settle()
                rows[provider.name] = replace(rows[provider.name], status=FAILED, reason=first_line(error))
    if ours not in stages:
        return tuple(rows.values())
    first = interleaved({name: stage.device for name, stage in stages.items()}, 1)
    rounds = rounds_for([times[0] for times in first.values()])
    device = interleaved({name: stage.device for name, stage in stages.items()}, rounds)
    wall = interleaved({name: stage.wall for name, stage in stages.items()}, min(rounds, _WALL_ROUNDS))
    for name, stage in stages.items():
        seconds = spread(device[name]).median / 1e6
        gb_s, tflop_s = case.work.bytes / seconds / 1e9, case.work.flop / seconds / 1e12
        rows[name] = replace(
            rows[name], status=TIMED, mode=stage.mode, copies=stage.copies, rounds=rounds,
            device=spread(device[name]), wall=spread(wall[name]), gb_s=gb_s, tflop_s=tflop_s,
            of_copy=gb_s / run.copy_gb_s, of_gemm=tflop_s / run.gemm_tflop_s,
        )  # fmt: skip
    return tuple(rows.values())


def _checked(case: Case, provider: Provider, operands: Operands, truth: Any, timer: Timer) -> Row:
    """The row of a provider that has been called, and is right or not."""
    allowed = case.allowed if provider.allowed is None else provider.allowed
    row = Row(provider.name, UNTIMED, allowed=allowed, note=provider.note)
    try:
        begin = time.perf_counter()
        result = provider.call(provider.prepare(copied(operands)))
        timer.settle()
        row = replace(row, first_call=time.perf_counter() - begin)
        error = case.error(result, truth)
        if provider.device:
            del result
            error = max(error, case.error(provider.device(provider.prepare(copied(operands))), truth))
    except MissingError as error:
        return replace(row, status=MISSING, reason=first_line(error))
    except LostError:
        raise
    except Exception as error:
        timer.settle()
        return replace(row, status=FAILED, reason=f"{type(error).__name__}: {first_line(error)}")
    if not error <= allowed:
        return replace(row, status=WRONG, error=error, reason=f"error {error:.3g} is above {allowed:.3g}")
    return replace(row, error=error)


def _staged(case: Case, provider: Provider, operands: Operands, timer: Timer, ours: Stage | None) -> Stage:
    """Ready to be timed in the mode of ours; ours itself in a graph if it is short."""

    def stage(graph: bool) -> Stage:
        return timer.stage(provider, operands, case.written, graph)

    if not provider.captures or (ours is not None and ours.mode == "eager"):
        return stage(False)
    try:
        captured = stage(True)
    except CaptureError:
        timer.settle()
        return stage(False)
    if ours is None and min(captured.device() for _ in range(3)) >= GRAPH_BELOW:
        return stage(False)
    return captured

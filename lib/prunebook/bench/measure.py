"""Measure a case: check everyone against the reference first, then time those who are right, in
turn."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch

from ..errors import first_line
from .case import Case, MissingError, Operands, Provider, copied
from .record import CONTROL, FAILED, MISSING, OWN, TIMED, UNTIMED, WRONG, Row, Run
from .timing import interleaved, rounds_for, spread

_WALL_ROUNDS = 10


class CaptureError(Exception):
    """A CUDA graph cannot hold this implementation."""


class LostError(Exception):
    """The device no longer answers: nothing more can be measured in this process."""


class SampleError(Exception):
    """An implementation failed while it was sampled."""

    def __init__(self, provider: str, reason: str):
        super().__init__(reason)
        self.provider = provider


class Stage(Protocol):
    """A provider ready to be timed; samples are microseconds a call."""

    mode: str
    copies: int

    def device(self) -> float: ...

    def wall(self) -> float: ...


class Timer(Protocol):
    """The device and its clocks."""

    name: str

    def stage(
        self, provider: Provider, operands: Operands, written: tuple[str, ...], graph: bool
    ) -> Stage:
        """Make ready to time; raises `CaptureError` if a graph is asked for and cannot hold it."""

    def settle(self) -> None:
        """Wait for the device; raises `LostError` if it no longer answers."""

    def clocks(self) -> dict[str, float] | None:
        """Clocks, power and temperature now."""

    def machine(self) -> dict[str, Any]:
        """What the device is; `device` names it."""

    def ceilings(self) -> tuple[float, float]:
        """GB/s of a copy, read and written together, and TFLOP/s of a bfloat16 product, measured
        now."""

    def release(self) -> None:
        """Free what the last case took; raises `LostError` as `settle` does."""


def measure(case: Case, timer: Timer, seed: int, run: Run) -> tuple[Row, ...]:
    """The rows of a case, in the order of its providers; of ours alone where operands or reference
    cannot be made.

    A wrong implementation is never timed, and beside one of ours that is wrong or fails nobody is.

    Raises:
        LostError: the device no longer answers; the message says at what.
    """
    ours = case.providers[0].name
    try:
        operands = case.make(torch.Generator(timer.name).manual_seed(seed))
        truth = case.reference(copied(operands))
        timer.settle()
    except Exception as error:
        _settle(timer, "operands or reference")
        return (Row(ours, FAILED, OWN, reason=f"operands or reference: {first_line(error)}"),)
    rows = {
        provider.name: _checked(case, provider, operands, truth, timer)
        for provider in case.providers
    }
    if rows[ours].status != UNTIMED:  # which stands for right, so far
        return _untimed(rows, "ours is not right")
    stages = {}
    for provider in case.providers:
        if rows[provider.name].status == UNTIMED and (ours in stages or provider.name == ours):
            try:
                stages[provider.name] = _staged(case, provider, operands, timer)
            except LostError:
                raise
            except Exception as error:
                _settle(timer, f"staging {provider.name}")
                rows[provider.name] = _failed(rows[provider.name], "staging", error)
    while ours in stages:
        try:
            return _timed(case, rows, stages, run)
        except SampleError as error:
            _settle(timer, f"sampling {error.provider}")
            rows[error.provider] = _failed(rows[error.provider], "sampling", error)
            del stages[error.provider]
    return _untimed(rows, "ours failed")


def _settle(timer: Timer, doing: str) -> None:
    """Wait for the device; if it is lost, the error says at what."""
    try:
        timer.settle()
    except LostError as error:
        raise LostError(f"{doing}: {first_line(error)}") from error


def _failed(row: Row, doing: str, error: Exception) -> Row:
    return replace(row, status=FAILED, reason=f"{doing}: {first_line(error)}")


def _untimed(rows: dict[str, Row], reason: str) -> tuple[Row, ...]:
    return tuple(
        replace(row, reason=reason) if row.status == UNTIMED else row for row in rows.values()
    )


def _checked(case: Case, provider: Provider, operands: Operands, truth: Any, timer: Timer) -> Row:
    """The row of a provider that has been called, and is right or not; a control is only called."""
    role = OWN if provider is case.providers[0] else provider.role
    allowed = case.allowed if provider.allowed is None else provider.allowed
    row = Row(
        provider.name,
        UNTIMED,
        role,
        allowed=None if role == CONTROL else allowed,
        note=provider.note,
    )
    try:
        begin = time.perf_counter()
        result = provider.call(provider.prepare(copied(operands)))
        _settle(timer, f"calling {provider.name}")
        row = replace(row, first_call=time.perf_counter() - begin)
        if role == CONTROL:
            return row
        error = case.error(result, truth)
        if provider.device:
            del result
            error = max(
                error, case.error(provider.device(provider.prepare(copied(operands))), truth)
            )
    except MissingError as error:
        return replace(row, status=MISSING, reason=first_line(error))
    except LostError:
        raise
    except Exception as error:
        _settle(timer, f"calling {provider.name}")
        return replace(row, status=FAILED, reason=f"{type(error).__name__}: {first_line(error)}")
    if not error <= allowed:
        return replace(
            row, status=WRONG, error=error, reason=f"error {error:.3g} is above {allowed:.3g}"
        )
    return replace(row, error=error)


def _staged(case: Case, provider: Provider, operands: Operands, timer: Timer) -> Stage:
    """Ready to be timed: in a graph, so that no gaps between launches are timed; eager where a
    graph cannot hold it."""
    if provider.captures:
        try:
            return timer.stage(provider, operands, case.written, True)
        except CaptureError:
            pass  # and with the error goes what was staged, before anything is staged again
        _settle(timer, f"capturing {provider.name}")
        timer.release()
    return timer.stage(provider, operands, case.written, False)


def _timed(case: Case, rows: dict[str, Row], stages: dict[str, Stage], run: Run) -> tuple[Row, ...]:
    """The rows with the times of all that are staged; raises `SampleError`."""
    on_device = {name: _sampler(name, stage.device) for name, stage in stages.items()}
    first = interleaved(on_device, 1)
    rounds = rounds_for([first[name][0] * stage.copies for name, stage in stages.items()])
    device = interleaved(on_device, rounds)
    wall = interleaved(
        {name: _sampler(name, stage.wall) for name, stage in stages.items()},
        min(rounds, _WALL_ROUNDS),
    )
    found = dict(rows)
    for name, stage in stages.items():
        seconds = spread(device[name]).median / 1e6
        gb_s = case.work.bytes / seconds / 1e9
        tflop_s = case.work.flop / seconds / 1e12
        found[name] = replace(
            rows[name],
            status=TIMED,
            mode=stage.mode,
            copies=stage.copies,
            rounds=rounds,
            device=spread(device[name]),
            wall=spread(wall[name]),
            gb_s=gb_s,
            tflop_s=tflop_s,
            of_copy=gb_s / run.copy_gb_s,
            of_gemm=tflop_s / run.gemm_tflop_s,
        )
    return tuple(found.values())


def _sampler(name: str, sample: Callable[[], float]) -> Callable[[], float]:
    """The sampler, whose errors say whose they are."""

    def sampled() -> float:
        try:
            return sample()
        except Exception as error:
            raise SampleError(name, first_line(error)) from error

    return sampled

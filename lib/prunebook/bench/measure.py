"""Measure a case: check all implementations against the reference, then time the right ones."""

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
    """A provider ready to be timed."""

    mode: str
    copies: int

    def device(self) -> float:
        """A sample of the time on the device, in microseconds a call."""

    def wall(self) -> float:
        """A sample of the time by the wall clock, in microseconds a call."""


class Timer(Protocol):
    """The device and its clocks."""

    name: str

    def stage(
        self, provider: Provider, operands: Operands, written: tuple[str, ...], graph: bool
    ) -> Stage:
        """Prepare a provider to be timed.

        Raises:
            CaptureError: a graph is asked for and cannot hold it.
        """

    def settle(self) -> None:
        """Wait for the device.

        Raises:
            LostError: it no longer answers.
        """

    def clocks(self) -> dict[str, float] | None:
        """Clocks, power and temperature now."""

    def machine(self) -> dict[str, Any]:
        """Name and sizes of the device, its name under `device`."""

    def ceilings(self) -> tuple[float, float]:
        """GB/s of a copy and TFLOP/s of a bfloat16 product, measured now.

        Bytes read and bytes written are both counted.
        """

    def release(self) -> None:
        """Free the memory of the last case.

        Raises:
            LostError: the device no longer answers.
        """


def measure(case: Case, timer: Timer, seed: int, run: Run) -> tuple[Row, ...]:
    """Check and time the providers of a case.

    A wrong implementation is never timed. Where ours is wrong or fails, no provider is timed.

    Args:
        case: what is measured.
        timer: the device.
        seed: seed of the operands.
        run: the run, whose ceilings are used.

    Returns:
        One row for each provider, in their order; the row of ours alone where operands or reference
        cannot be made.

    Raises:
        LostError: the device no longer answers; the message says during which step.
    """
    ours = case.providers[0].name
    try:
        operands = case.make(torch.Generator(timer.name).manual_seed(seed))
        truth = case.reference(copied(operands))
        timer.settle()
    except Exception as error:
        _settle(timer, "operands or reference")
        return (Row(ours, FAILED, OWN, reason=f"operands or reference: {first_line(error)}"),)
    # Check all implementations. The status of a right one is UNTIMED so far.
    rows = {
        provider.name: _checked(case, provider, operands, truth, timer)
        for provider in case.providers
    }
    if rows[ours].status != UNTIMED:
        return _untimed(rows, "ours is not right")
    # Prepare the right ones for timing, ours first.
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
    # Time them in turn; without those that fail, until none fails.
    while ours in stages:
        try:
            return _timed(case, rows, stages, run)
        except SampleError as error:
            _settle(timer, f"sampling {error.provider}")
            rows[error.provider] = _failed(rows[error.provider], "sampling", error)
            del stages[error.provider]
    return _untimed(rows, "ours failed")


def _settle(timer: Timer, doing: str) -> None:
    """Wait for the device; if it is lost, the error says during which step."""
    try:
        timer.settle()
    except LostError as error:
        raise LostError(f"{doing}: {first_line(error)}") from error


def _failed(row: Row, doing: str, error: Exception) -> Row:
    """The row of a provider that raised an error."""
    return replace(row, status=FAILED, reason=f"{doing}: {first_line(error)}")


def _untimed(rows: dict[str, Row], reason: str) -> tuple[Row, ...]:
    """All rows; those that would be timed say why they are not."""
    for name, row in rows.items():
        if row.status == UNTIMED:
            rows[name] = replace(row, reason=reason)
    return tuple(rows.values())


def _checked(case: Case, provider: Provider, operands: Operands, truth: Any, timer: Timer) -> Row:
    """Call a provider once and compare its result; a control is only called."""
    role = provider.role
    if provider is case.providers[0]:
        role = OWN
    allowed = case.allowed
    if provider.allowed is not None:
        allowed = provider.allowed
    row = Row(provider.name, UNTIMED, role, allowed=allowed, note=provider.note)
    if role == CONTROL:
        row = replace(row, allowed=None)
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
            result = provider.device(provider.prepare(copied(operands)))
            error = max(error, case.error(result, truth))
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
    """Prepare a provider for timing.

    It stands in a graph, so that no gaps between launches are timed, or is eager where a graph
    cannot hold it.
    """
    if provider.captures:
        try:
            return timer.stage(provider, operands, case.written, True)
        except CaptureError:
            pass  # The error holds what was staged; it is dropped before the next staging.
        _settle(timer, f"capturing {provider.name}")
        timer.release()
    return timer.stage(provider, operands, case.written, False)


def _timed(case: Case, rows: dict[str, Row], stages: dict[str, Stage], run: Run) -> tuple[Row, ...]:
    """The rows with the times of all staged providers.

    Raises:
        SampleError: a provider failed while it was sampled.
    """
    on_device = {name: _sampler(name, stage.device) for name, stage in stages.items()}
    first = interleaved(on_device, 1)
    rounds = rounds_for([first[name][0] * stage.copies for name, stage in stages.items()])
    device = interleaved(on_device, rounds)
    wall = interleaved(
        {name: _sampler(name, stage.wall) for name, stage in stages.items()},
        min(rounds, _WALL_ROUNDS),
    )
    timed = dict(rows)
    for name, stage in stages.items():
        seconds = spread(device[name]).median / 1e6
        gb_s = case.work.bytes / seconds / 1e9
        tflop_s = case.work.flop / seconds / 1e12
        timed[name] = replace(
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
    return tuple(timed.values())


def _sampler(name: str, sample: Callable[[], float]) -> Callable[[], float]:
    """The sampler of a provider, whose errors name that provider."""

    def sampled() -> float:
        try:
            return sample()
        except Exception as error:
            raise SampleError(name, first_line(error)) from error

    return sampled

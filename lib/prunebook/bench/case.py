"""A case: one computation on one shape, its reference, and all implementations of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .record import RIVAL
from .work import Work

Operands = dict[str, Any]  # tensors under their names, and values that are no tensors


class MissingError(Exception):
    """This machine lacks an implementation; the message says in one line what is missing."""


@dataclass(frozen=True)
class Provider:
    """One implementation of a case; the first of a case is ours.

    Attributes:
        name: unique name among the providers of the case.
        call: what a user calls. It is checked, and timed by the wall clock.
        device: the same work without waiting for the host, timed on the device; by default `call`.
        prepare: turns the operands into what the call takes, e.g. packed weights. It runs once and
            is not timed. It raises `MissingError` where the machine lacks something. Operands that
            the case writes to must be passed on as they are.
        role: `rival` for what users pick today; `own` for another form of ours; `control` for what
            computes something else on the same operands and is not compared with the reference.
            Speed-ups are over rivals. The first provider is always `own`.
        allowed: error allowed in place of the case's.
        captures: whether a CUDA graph can hold the call.
        note: what sets it apart, for the reader of the record.
    """

    name: str
    call: Callable[[Operands], Any]
    device: Callable[[Operands], Any] | None = None
    prepare: Callable[[Operands], Operands] = lambda operands: operands
    role: str = RIVAL
    allowed: float | None = None
    captures: bool = True
    note: str | None = None


@dataclass(frozen=True)
class Case:
    """One computation.

    Attributes:
        kernel: name of the kernel family, e.g. 'select-rows'.
        shape: sizes under their names, e.g. rows and columns.
        work: bytes and operations that the computation takes at least.
        make: makes the operands from a generator on the device.
        reference: computes the truth from a copy of the operands.
        error: `(result, truth) -> number`.
        providers: the implementations, ours first.
        settings: what sets the case apart beside its shape, e.g. the score.
        dtype: dtype of the weight.
        allowed: largest error of a right result.
        written: names of the operands that a call changes; they are restored before each call.
        rank: order of importance, 0 first.
        seconds: seconds that measuring takes at most, to keep the time budget.
    """

    kernel: str
    shape: Mapping[str, int]
    work: Work
    make: Callable[[torch.Generator], Operands]
    reference: Callable[[Operands], Any]
    error: Callable[[Any, Any], float]
    providers: Sequence[Provider]
    settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"
    allowed: float = 0.0
    written: tuple[str, ...] = ()
    rank: int = 1
    seconds: float = 5.0

    @property
    def key(self) -> str:
        """Unique among all cases, e.g. `select-rows rows=4096 columns=4096 score=wanda`."""
        values = {**self.shape, **self.settings}
        return " ".join([self.kernel, *(f"{name}={value}" for name, value in values.items())])


def copied(operands: Operands) -> Operands:
    """The operands with copies of all tensors."""
    return {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in operands.items()}


def share_different(result: torch.Tensor, truth: torch.Tensor) -> float:
    """The share of the entries that differ, for results that must be equal bit by bit."""
    return (result != truth).double().mean().item()


def relative_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    """The norm of the difference over that of the truth, in float64.

    It is infinite for a result that is not finite.
    """
    truth = truth.double()
    error = ((result.double() - truth).norm() / truth.norm()).item()
    if math.isnan(error):
        return math.inf
    return error

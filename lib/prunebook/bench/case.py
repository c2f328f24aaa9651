"""A case: one computation on one shape, its reference, and all who compute it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .record import RIVAL
from .work import Work

Operands = dict[str, Any]  # tensors under their names, and what is none


class MissingError(Exception):
    """An implementation that this machine lacks; the message says what, in one line."""


@dataclass(frozen=True)
class Provider:
    """One who computes a case; the first of a case is ours.

    Attributes:
        call: what a user calls. It is checked, and timed by the wall clock.
        device: the same work without what waits for the host, timed on the device; by default
            `call`.
        prepare: makes of the operands what the call takes, once and not timed, as packed weights.
            It raises `MissingError` where the machine lacks what is needed. What the case writes to
            it must hand on as it is.
        role: `rival`, what users pick today; `own`, another form of ours; `control`, which computes
            something else on the same operands and is not compared with the reference. Speed-ups
            are over rivals. Ours is `own` anyhow.
        allowed: error allowed in place of the case's.
        captures: whether a CUDA graph can hold it.
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
        make: the operands, from a generator on the device.
        reference: the truth, from a copy of them.
        error: `(result, truth) -> number`, and `allowed` how large it may be.
        written: the operands that a call changes; they are put back before each.
        dtype: of the weight.
        rank: order of importance, 0 first.
        seconds: what it takes at most, to hold the time budget.
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
        """Unique among all cases, as `select-rows rows=4096 columns=4096 score=wanda`."""
        return " ".join(
            [
                self.kernel,
                *(f"{name}={value}" for name, value in {**self.shape, **self.settings}.items()),
            ]
        )


def copied(operands: Operands) -> Operands:
    """The operands with tensors of their own."""
    return {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in operands.items()}


def share_different(result: torch.Tensor, truth: torch.Tensor) -> float:
    """The share of the entries that differ; for what must be equal bit by bit."""
    return (result != truth).double().mean().item()


def relative_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    """The norm of the difference over that of the truth, in float64; infinite for a result that is
    not finite."""
    truth = truth.double()
    error = ((result.double() - truth).norm() / truth.norm()).item()
    return error if error == error else float("inf")

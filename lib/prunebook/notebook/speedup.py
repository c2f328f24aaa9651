"""How many times as fast one thing is as another, both timed in turn. Needs no torch."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from .contention import BUSY


@dataclass(frozen=True)
class Speedup:
    """The ratio of two speeds in each round, and whether it can be believed.

    Attributes:
        ratios: how many times as fast, one a round; empty only if the machine was busy.
        flops_ratio: the FLOPs of what is compared with, divided by those of the faster thing;
            None if FLOPs do not bound the ratio, e.g. in memory-bound work on caches.
        busy: whether other work disturbed a round.
        what: the work that was timed, as the end of a sentence about the model.
        detail: the speeds themselves, and how they were taken.
    """

    ratios: tuple[float, ...]
    flops_ratio: float | None = None
    busy: bool = False
    what: str = ""
    detail: str = ""

    def __post_init__(self):
        if not self.ratios and not self.busy:
            raise UserError("a speed-up has no rounds; time both things at least once")

    @property
    def median(self) -> float:
        """The median over rounds."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % interval of the median, between two of the sorted rounds.

        The interval that leaves out j rounds at either end misses the true median with twice the
        probability that at most j of n fair coins show heads. Fewer than six rounds cannot reach
        95 %; the interval is then that of the lowest and highest.
        """
        ordered = sorted(self.ratios)
        rounds = len(self.ratios)
        left_out = 0  # number of outcomes with at most one head
        tail = 1 + rounds
        while 2 * tail <= 0.05 * 2**rounds:
            left_out += 1
            tail += math.comb(rounds, left_out + 1)
        return ordered[left_out], ordered[rounds - 1 - left_out]

    @property
    def refusal(self) -> str | None:
        """Why the ratio is not shown; None if it is shown.

        It is not where the machine was busy, and where it exceeds the ratio of the FLOPs by more
        than a third.
        """
        if self.busy:
            return BUSY
        if self.flops_ratio is not None and 3 * self.median > 4 * self.flops_ratio:
            allowed = f"{self.flops_ratio:.3g}"
            return f"not believed: {self.median:.2f} times, where the FLOPs allow {allowed}"
        return None

    def verdict(self, at_least: float = 1.0) -> str:
        """`holds` if the interval lies above `at_least`, `fails` if it lies below, else `tie`.

        Raises:
            UserError: a ratio that is refused.
        """
        if self.refusal:
            raise UserError(f"a speed-up has no verdict: {self.refusal}")
        low, high = self.interval
        if low > at_least:
            return "holds"
        if high < at_least:
            return "fails"
        return "tie"

    def __str__(self) -> str:
        if self.refusal:
            return self.refusal
        if len(self.ratios) == 1:
            return f"{self.median:.2f} times as fast (1 round)"
        low, high = self.interval
        return (
            f"{self.median:.2f} times as fast ({low:.2f} to {high:.2f}, {len(self.ratios)} rounds)"
        )


def of_rates(base: Sequence[float], rates: Sequence[float], **about) -> Speedup:
    """The speed-up of `rates` over `base`, both per second, one a round.

    Args:
        base: rates of what is compared with.
        rates: rates of what should be faster, in the same rounds.
        about: the other attributes of a `Speedup`.

    Raises:
        UserError: unequal numbers of rounds, no round, or a rate of 0 or less.
    """
    if len(base) != len(rates):
        raise UserError(
            f"a speed-up has {len(base)} rounds against {len(rates)}; time both in every round"
        )
    if not all(rate > 0 for rate in (*base, *rates)):
        raise UserError("a speed-up needs rates and times above 0")
    ratios = tuple(float(rate / slower) for slower, rate in zip(base, rates, strict=True))
    return Speedup(ratios, **about)


def of_seconds(
    base: Sequence[float | None] | None,
    seconds: Sequence[float | None] | None,
    unit: str = "s",
    **about,
) -> Speedup:
    """The speed-up of what took `seconds` over what took `base`. Its `detail` are both medians.

    Args:
        base: seconds of what is compared with; None, or a round of None, if the machine was busy.
        seconds: seconds of what should be faster, in the same rounds, likewise.
        unit: `s` or `ms`, in which the medians are written.
        about: the other attributes of a `Speedup`.

    Raises:
        UserError: as `of_rates`.
    """
    if base is None or seconds is None or any(each is None for each in (*base, *seconds)):
        return Speedup((), busy=True, **about)
    scale = {"s": 1, "ms": 1000}[unit]
    medians = [f"{scale * statistics.median(each):.3g} {unit}" for each in (seconds, base)]
    return of_rates(seconds, base, detail=f"{medians[0]} against {medians[1]}", **about)

"""A measured quantity beside a bound: its 95 % interval by the bootstrap, and its verdict."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError

MIN_SAMPLES = 20  # with fewer the percentile bootstrap errs much more often than it says
_RESAMPLES = 2000


@dataclass(frozen=True)
class Bound:
    """A quantity, its 95 % interval, and the bound that a claim sets for it.

    Attributes:
        estimate: the quantity, of all samples.
        low: lower end of the interval.
        high: upper end of the interval.
        samples: number of samples, e.g. of windows, blocks or linears.
        at_least: the bound from below; None where the claim sets none.
        at_most: the bound from above; None where the claim sets none.
    """

    estimate: float
    low: float
    high: float
    samples: int
    at_least: float | None = None
    at_most: float | None = None

    @property
    def refusal(self) -> str | None:
        """Why there is no verdict, as text; None where there is one."""
        if self.samples < MIN_SAMPLES:
            return f"{self.samples} samples; a verdict takes at least {MIN_SAMPLES}"
        return None

    @property
    def verdict(self) -> str:
        """`holds` where the whole interval keeps the bound, `fails` where none of it does.

        All else is a `tie`.

        Raises:
            UserError: there is no verdict, see `refusal`.
        """
        if self.refusal:
            raise UserError(f"a bound has no verdict: {self.refusal}")
        # A side without a bound is kept by every value.
        least = -math.inf
        most = math.inf
        if self.at_least is not None:
            least = self.at_least
        if self.at_most is not None:
            most = self.at_most
        # The bound itself must lie outside the interval: equality proves nothing.
        if least < self.low and self.high < most:
            return "holds"
        if self.high < least or self.low > most:
            return "fails"
        return "tie"

    def to_dict(self) -> dict[str, Any]:
        """The numbers for a record, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        """The estimate and its interval."""
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bound(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    at_least: float | None = None,
    at_most: float | None = None,
    seed: int = 0,
) -> Bound:
    """Test whether a quantity keeps a bound, by the percentile bootstrap.

    Args:
        statistic: the quantity, of as many arrays as `samples` has.
        samples: arrays of one length n, whose entries belong together, e.g. the losses of two
            models on n windows; they are drawn together, with replacement.
        at_least: the bound from below; the interval must lie above it.
        at_most: the bound from above; the interval must lie below it.
        seed: seed of the resampling.

    Raises:
        UserError: no bound, no samples, arrays of different length, or a quantity that is not
            finite.
    """
    if at_least is None and at_most is None:
        raise UserError("bound: no bound is given; give at_least, at_most, or both")
    arrays = [np.asarray(values, dtype=np.float64) for values in samples]
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        shapes = ", ".join(str(list(array.shape)) for array in arrays) or "none"
        raise UserError(f"bound: samples have the shapes {shapes}; needs arrays of one length")
    size = len(arrays[0])
    # Each resample takes n of the n entries, the same ones of every array.
    generator = np.random.default_rng(seed)
    chosen = generator.integers(size, size=(_RESAMPLES, size))
    resampled = [statistic(*(array[entries] for array in arrays)) for entries in chosen]
    low, high = np.quantile(resampled, [0.025, 0.975])
    estimate = float(statistic(*arrays))
    if not np.isfinite([estimate, low, high]).all():
        raise UserError(f"bound: the quantity is not finite: {estimate} [{low}, {high}]")
    return Bound(estimate, float(low), float(high), size, at_least, at_most)

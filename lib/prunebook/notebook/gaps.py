"""The difference of two losses on the same text, its standard error and its verdict."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError


@dataclass(frozen=True)
class Gap:
    """The mean of `higher - lower` in nats per token, its standard error, and the verdict."""

    mean: float
    standard_error: float

    @property
    def ratio(self) -> float:
        """The ratio of the two perplexities, higher to lower."""
        return math.exp(self.mean)

    @property
    def verdict(self) -> str:
        """`holds` above two standard errors, `fails` below minus two, `tie` in between."""
        if self.mean > 2 * self.standard_error:
            return "holds"
        if self.mean < -2 * self.standard_error:
            return "fails"
        return "tie"

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.standard_error:.4f} nats per token"


def gap(lower: ArrayLike, higher: ArrayLike) -> Gap:
    """Test whether `lower` lies below `higher`, pairing the two by window and calibration seed.

    The standard error joins the spread over windows (of the means over seeds) and the spread over
    seeds (of the means over windows): sqrt(var_windows / W + var_seeds / S). The second term is 0
    where there is one seed.

    Args:
        lower: mean negative log-likelihood of each window in nats per token, `[seeds, windows]`,
            of the model that should have the lower one.
        higher: the same of the other model, on the same windows and seeds.

    Raises:
        UserError: the two are not of one shape `[seeds, windows]` with two windows or more, or a
            value is not finite.
    """
    lower = _matrix("lower", lower)
    higher = _matrix("higher", higher)
    if lower.shape != higher.shape:
        raise UserError(
            f"gap: lower {list(lower.shape)} and higher {list(higher.shape)} must have one shape"
        )
    difference = higher - lower
    seeds, windows = difference.shape
    of_windows = difference.mean(0).std(ddof=1) / math.sqrt(windows)
    of_seeds = 0.0
    if seeds > 1:
        of_seeds = difference.mean(1).std(ddof=1) / math.sqrt(seeds)
    return Gap(float(difference.mean()), math.hypot(of_windows, of_seeds))


def _matrix(name: str, values: ArrayLike) -> np.ndarray:
    """The argument of this name as float64 `[seeds, windows]`, checked."""
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"gap: {name} must be numbers [seeds, windows]: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] < 1 or matrix.shape[1] < 2:
        raise UserError(f"gap: {name} has shape {list(matrix.shape)}; needs [seeds, windows >= 2]")
    if not np.isfinite(matrix).all():
        count = int((~np.isfinite(matrix)).sum())
        raise UserError(f"gap: {name} has {count} values that are not finite")
    return matrix

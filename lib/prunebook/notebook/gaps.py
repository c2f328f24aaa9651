"""The difference of two losses on the same text: its 95 % interval and its verdict. Needs no torch.

Two models read the same windows, and each was pruned once for every draw of calibration text. With
`d_sw` the difference for draw s and window w, the mean of all `d_sw` is judged by the analysis of
variance of a table whose S rows are the draws and whose W columns are the windows:

    A = mean square of the draws,        S - 1 degrees of freedom
    B = mean square of the windows,      W - 1 degrees of freedom
    E = mean square of what is left,     (S - 1)(W - 1) degrees of freedom

Draws and windows are both samples: other texts might have been taken. The variance of the mean is
`(A + max(B - E, 0)) / (SW)`, and the degrees of freedom of its two terms are joined by Welch and
Satterthwaite. `concepts/other_concepts` simulates how often the rule errs.
"""

import math
from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from ..errors import UserError
from .claim_boxes import few_draws

NATS = "nats per token"
MIN_WINDOWS = 8  # fewer windows give no verdict
MIN_DRAWS = 3  # fewer draws say too little of how draws differ
_LARGEST = 500.0  # a larger difference overflows as a ratio of perplexities
_POWER = 0.8  # share of repetitions that show a gap of the size `detectable`


@dataclass(frozen=True)
class Gap:
    """The mean of `higher - lower`, and how well it is known.

    Attributes:
        mean: mean over draws and windows, in `unit`.
        standard_error: standard error of the mean, in `unit`.
        degrees_of_freedom: those of the t distribution by which the mean is judged.
        windows: number of held-out windows.
        draws: number of draws, of calibration text or of random controls; 0 where nothing is
            drawn.
        unit: unit of the losses.
        columns: what the columns are, where they are no windows, e.g. `blocks`.
        margin: None for the question whether `lower` is lower; else the question is whether the
            two differ by less than this.
        one_run: the question is about the models at hand and not about other draws.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float
    windows: int
    draws: int
    unit: str = NATS
    columns: str = "windows"
    margin: float | None = None
    one_run: bool = False

    @property
    def ratio(self) -> float:
        """The ratio of the two perplexities, higher to lower."""
        return math.exp(self.mean)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of the mean."""
        return self._quantile(0.975) * self.standard_error

    @property
    def detectable(self) -> float:
        """The gap that eight of ten repetitions of such a run would show."""
        return (self._quantile(0.975) + self._quantile(_POWER)) * self.standard_error

    @property
    def refusal(self) -> str | None:
        """Why there is no verdict, as text; None where there is one."""
        if self.windows < MIN_WINDOWS:
            return f"{self.windows} {self.columns}; a verdict takes at least {MIN_WINDOWS}"
        return None

    @property
    def this_draw_only(self) -> bool:
        """Whether so few draws were made that others might show something else."""
        return 0 < self.draws < MIN_DRAWS and not self.one_run

    @property
    def verdict(self) -> str:
        """`holds`, `fails` or `tie`.

        `holds` means that the whole 95 % interval lies above 0, `fails` that it lies below; with a
        `margin`, that both one-sided tests at 5 % place the gap within it, or that the interval
        lies outside. All else is a `tie`, and so is what fewer than three draws show.

        Raises:
            UserError: there is no verdict, see `refusal`.
        """
        if self.refusal:
            raise UserError(f"a gap has no verdict: {self.refusal}")
        if self.this_draw_only:
            return "tie"
        if self.margin is not None:
            return self._equivalence()
        # The interval does not reach 0 exactly where the t test at 5 % rejects equality.
        if self.mean > self.half_width:
            return "holds"
        if self.mean < -self.half_width:
            return "fails"
        return "tie"

    def within(self, ratio: float) -> "Gap":
        """The same gap with the question whether the two perplexities differ by less than a ratio.

        Args:
            ratio: largest ratio of the two perplexities that counts as no difference, e.g. 1.01.

        Raises:
            UserError: a ratio of 1 or less.
        """
        if not isinstance(ratio, Real) or not 1 < ratio < math.inf:
            raise UserError(f"within: ratio {ratio!r} is not allowed; use one above 1, e.g. 1.01")
        return replace(self, margin=math.log(ratio))

    def of_one_run(self) -> "Gap":
        """The same gap for a claim about one run: a single draw then gives a verdict, too."""
        return replace(self, one_run=True)

    def to_dict(self) -> dict[str, Any]:
        """The numbers for a record, JSON-able."""
        names = ["half_width", "detectable", "this_draw_only"]
        # Only a difference of negative log-likelihoods is a ratio of perplexities.
        if self.unit == NATS:
            names.append("ratio")
        return asdict(self) | {name: getattr(self, name) for name in names}

    def _equivalence(self) -> str:
        """The verdict on the question whether the gap lies within the margin."""
        distance = abs(self.mean)
        # Two one-sided tests at 5 % are a 90 % interval that lies within the margin.
        if distance + self._quantile(0.95) * self.standard_error < self.margin:
            return "holds"
        if distance - self.half_width > self.margin:
            return "fails"
        return "tie"

    def _quantile(self, probability: float) -> float:
        """Quantile of the t distribution."""
        return float(stdtrit(self.degrees_of_freedom, probability))

    def __str__(self) -> str:
        """Mean and 95 % interval."""
        text = f"{self.mean:+.4f} ± {self.half_width:.4f} {self.unit}"
        if self.this_draw_only:
            return f"{text}, {few_draws(self.draws)}"
        return text


def gap(
    lower: ArrayLike,
    higher: ArrayLike,
    *,
    drawn: bool = True,
    unit: str = NATS,
    columns: str = "windows",
) -> Gap:
    """Test whether `lower` lies below `higher`, pairing the two by window and draw.

    Args:
        lower: mean loss of each window, `[draws, windows]`, of the model that should have the lower
            one.
        higher: the same of the other model, on the same windows and draws. Repeated controls, e.g.
            random masks, are draws of it; `lower` may then have one row for all of them, and counts
            as one draw unless `drawn` is False.
        drawn: False where `lower` depends on no draw, and `higher` on none but its own, if it has
            several rows.
        unit: unit of the losses.
        columns: what the columns are, where they are no windows, e.g. `blocks`.

    Returns:
        The gap; with 0 draws where the difference is the same in all rows, as nothing was drawn.

    Raises:
        UserError: the two do not fit each other, are not `[draws, windows]` with two windows or
            more, hold a value that is not finite, or differ by more than numbers can hold.
    """
    lower = _matrix("lower", lower)
    higher = _matrix("higher", higher)
    one_for_all = len(lower) == 1 and lower.shape[1] == higher.shape[1]
    if lower.shape != higher.shape and not one_for_all:
        raise UserError(
            f"gap: lower {list(lower.shape)} and higher {list(higher.shape)} must have one shape"
        )
    if not drawn and not _all_equal(lower):
        raise UserError(f"gap: {len(lower)} draws of lower differ; leave drawn=False out")
    difference = higher - lower
    draws = _count_draws(difference, drawn, one_for_all)
    if draws == 0:
        difference = difference[:1]
    error, freedom = _error(difference)
    mean = float(difference.mean())
    if not all(map(math.isfinite, (mean, error, freedom))) or abs(mean) > _LARGEST:
        raise UserError(f"gap: a difference of {mean:.3g} ± {error:.3g} cannot be judged")
    return Gap(mean, error, freedom, difference.shape[1], draws, unit, columns)


def _count_draws(difference: np.ndarray, drawn: bool, one_for_all: bool) -> int:
    """The draws that a difference rests on.

    Args:
        difference: `[draws, windows]`.
        drawn: as for `gap`.
        one_for_all: whether `lower` has one row for all of `higher`.
    """
    draws = len(difference)
    # Equal rows come from models without a draw, each of which was measured once.
    if draws > 1 and _all_equal(difference):
        return 0
    if draws == 1 and not drawn:
        return 0
    # Controls were repeated, and `lower` stands for one draw alone.
    if one_for_all and drawn:
        return 1
    return draws


def _all_equal(rows: np.ndarray) -> bool:
    """Whether all rows are the same."""
    return bool((rows == rows[0]).all())


def _error(difference: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean of `[draws, windows]`, and its degrees of freedom."""
    draws, windows = difference.shape
    if draws == 1:
        # One row: the windows are the only sample.
        return float(difference.std(ddof=1)) / math.sqrt(windows), windows - 1
    mean = difference.mean()
    of_draws = difference.mean(axis=1)
    of_windows = difference.mean(axis=0)
    # Mean squares A of the draws, B of the windows, E of what neither explains.
    left = difference - of_draws[:, None] - of_windows + mean
    freedom_of_draws = draws - 1
    freedom_of_windows = windows - 1
    A = windows * of_draws.var(ddof=1)
    B = draws * of_windows.var(ddof=1)
    E = (left**2).sum() / (freedom_of_draws * freedom_of_windows)
    # A holds one share of E already, so only what B has beyond E is added.
    beyond = max(B - E, 0.0)
    total = A + beyond
    if total == 0:
        return 0.0, freedom_of_windows
    # Welch and Satterthwaite: total^2 / (A^2 / (S - 1) + beyond^2 / (W - 1)).
    freedom = total**2 / (A**2 / freedom_of_draws + beyond**2 / freedom_of_windows)
    return math.sqrt(total / difference.size), float(freedom)


def _matrix(name: str, values: ArrayLike) -> np.ndarray:
    """The argument of this name as float64 `[draws, windows]`, checked."""
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"gap: {name} must be numbers [draws, windows]: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] < 1 or matrix.shape[1] < 2:
        raise UserError(f"gap: {name} has shape {list(matrix.shape)}; needs [draws, windows >= 2]")
    if not np.isfinite(matrix).all():
        count = int((~np.isfinite(matrix)).sum())
        raise UserError(f"gap: {name} has {count} values that are not finite")
    return matrix

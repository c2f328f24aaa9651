"""The scaling law of sparse pre-training: loss as a function of sparsity, non-zero weights and
data, its fit, and the sparsity that is best for a budget.

Frantar et al., Scaling Laws for Sparsely-Connected Foundation Models (ICLR 2024, arXiv 2309.08520);
official fits in google-research/jaxpruner, projects/bigsparse, at f133ee5. S is the fraction of
zeros in [0, 1), N the number of non-zero weights outside embeddings, D the amount of data (tokens),
C a training cost in floating-point operations.

Differences from the official fits: coefficients are fitted as logarithms, so that all stay
positive, with exact gradients, and by trust regions where theirs is BFGS.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import least_squares, minimize_scalar

from ...errors import UserError

_COEFFICIENTS = 7
_LEAST = 1e-13  # of a term, in nats: nothing
_EXPONENTS = (0.01, 10.0)  # where a term is nearly constant, and nearly a step


@dataclass(frozen=True)
class Law:
    """`L(S, N, D) = (a_S (1 - S)^b_S + c_S) N^-b_N + (a_D / D)^b_D + c`, in nats per token where it
    was fitted to such.

    Arguments of the methods are numbers or arrays that broadcast.

    Raises:
        UserError: a coefficient that is no finite number of 0 or more, or an exponent (b_s, b_n,
            b_d) that is 0.
    """

    a_s: float
    b_s: float
    c_s: float
    b_n: float
    a_d: float
    b_d: float
    c: float

    def __post_init__(self):
        for name, value in asdict(self).items():
            if (
                not isinstance(value, int | float)
                or not 0 <= value < math.inf
                or (name.startswith("b") and not value)
            ):
                above = ">" if name.startswith("b") else ">="
                raise UserError(
                    f"{name} {value!r} is not allowed in a law; use a finite number {above} 0"
                )

    def loss(self, S, N, D):
        """The loss after training.

        Raises:
            UserError: S outside [0, 1), N or D not above 0.
        """
        S = _sparsity(S)
        N = _positive("N", N)
        D = _positive("D", D)
        return self._capacity(S) * N**-self.b_n + (self.a_d / D) ** self.b_d + self.c

    def gain(self, S):
        """How many dense weights a non-zero weight is worth; 1 at S = 0.

        Raises:
            UserError: S outside [0, 1).
        """
        return (self._capacity(_sparsity(S)) / self._capacity(0.0)) ** (-1 / self.b_n)

    @property
    def largest_gain(self) -> float:
        """The limit of `gain` as S goes to 1."""
        return (1 + self.a_s / self.c_s) ** (1 / self.b_n) if self.c_s else math.inf

    def in_units(self, of_N: float, of_D: float) -> "Law":
        """The same law for N counted in `of_N` weights and D in `of_D` tokens, as 1e6 and 1e9.

        Raises:
            UserError: a unit not above 0.
        """
        scale = float(_positive("of_N", of_N)) ** -self.b_n
        a_d = self.a_d / float(_positive("of_D", of_D))
        return Law(self.a_s * scale, self.b_s, self.c_s * scale, self.b_n, a_d, self.b_d, self.c)

    def _capacity(self, S):
        return self.a_s * (1 - S) ** self.b_s + self.c_s


def dense_cost(S):
    """Training cost over that of the final non-zeros, if zeros save nothing: that of the dense
    parent."""
    return 1 / (1 - S)


def sparse_cost(S, start: float = 0.25, end: float = 0.75):
    """The same if every zero saves its share, under a cubic ramp between the shares `start` and
    `end` of training; its mean is 0.75 S."""
    return (start + (end - start) * (1 - 0.75 * S) + (1 - end) * (1 - S)) / (1 - S)


def optimal_sparsity(law: Law, N, C):
    """The sparsity of least loss for N non-zeros and cost C, where training costs what the dense
    parent costs: the derivative of `L(S, N, C (1 - S) / 6 N)` by 1 - S is zero, or S = 0 is best.

    Raises:
        UserError: N or C not above 0.
    """
    N = _positive("N", N)
    C = _positive("C", C)
    if not law.a_s:  # zeros are of no use
        return np.zeros(np.broadcast_shapes(N.shape, C.shape))
    kept = law.b_d / law.b_s * N**law.b_n / law.a_s * (6 * N * law.a_d / C) ** law.b_d
    return np.maximum(0.0, 1 - kept ** (1 / (law.b_s + law.b_d)))


def optimal_sparsity_at_cost(
    law: Law, N: float, C: float, cost: Callable[[float], float] = sparse_cost
) -> float:
    """The same for any cost `cost(S)` of a final non-zero, found numerically; at most 1 - 1e-6.

    With both costs of this module the loss is convex in log(1 - S), so that the minimum found is
    the only one.

    Raises:
        UserError: N or C not above 0.
    """
    N = float(_positive("N", N))
    C = float(_positive("C", C))

    def loss_at(log_kept: float) -> float:
        S = -math.expm1(log_kept)
        return law.loss(S, N, C / (6 * N * cost(S)))

    found = minimize_scalar(
        loss_at, bounds=(math.log(1e-6), 0.0), method="bounded", options={"xatol": 1e-10}
    )
    return 0.0 if loss_at(0.0) <= found.fun else -math.expm1(found.x)


@dataclass(frozen=True)
class Fit:
    """A fitted law; `loss` is the mean Huber loss of log losses, `losses` that of every start, best
    first, and `spread` the laws of the starts whose loss is within 10 % of the best, the best
    first."""

    law: Law
    loss: float
    losses: tuple[float, ...]
    spread: tuple[Law, ...]

    def range_of(self, coefficient: str) -> tuple[float, float]:
        """The least and the largest value of a coefficient, as `b_n`, over `spread`."""
        values = [getattr(law, coefficient) for law in self.spread]
        return min(values), max(values)


def fit(S, N, D, loss, *, delta: float = 1e-3, starts: int = 100, seed: int = 0) -> Fit:
    """Fit the law to measured losses: least Huber loss of the difference of logarithms, the best of
    many starts.

    Args:
        S, N, D, loss: arrays `[runs]` of sparsity, non-zeros, data and measured loss, 7 runs or
            more.
        delta: where the Huber loss turns from square to linear; the paper's for language.
        starts: random coefficients to begin from, each in [0.02, 1) for N and D over their
            geometric means.
        seed: of the starts.

    Raises:
        UserError: arrays of other shapes or too short, values out of range, or options that are not
            positive.
    """
    S = _sparsity(S)
    N = _positive("N", N)
    D = _positive("D", D)
    measured = np.log(_positive("loss", loss))
    if not S.shape == N.shape == D.shape == measured.shape or S.ndim != 1 or len(S) < _COEFFICIENTS:
        shapes = ", ".join(str(list(x.shape)) for x in (S, N, D, measured))
        raise UserError(
            f"S, N, D, loss have shapes {shapes}; use four arrays of one length, {_COEFFICIENTS} "
            "or more"
        )
    if not isinstance(starts, int) or starts < 1 or not delta > 0:
        raise UserError(
            f"starts {starts!r} and delta {delta!r} are not allowed; use 1 or more, and a number "
            "above 0"
        )
    unit_N, unit_D = (float(np.exp(np.log(x).mean())) for x in (N, D))
    logs = np.log1p(-S), np.log(N / unit_N), np.log(D / unit_D)

    def residuals(theta):
        return np.log(sum(_terms(theta, *logs))) - measured

    def jacobian(theta):
        sparse, constant, data, floor = _terms(theta, *logs)
        capacity = sparse + constant
        slopes = np.stack([sparse, -capacity, -data]) * logs * np.exp(theta[[1, 3, 5], None])
        parts = [sparse, slopes[0], constant, slopes[1], data, slopes[2], floor]
        return np.stack(np.broadcast_arrays(*parts), 1) / (capacity + data + floor)[:, None]

    # At the unit of N and D no term is larger than the loss, but for the sparse one if no run is
    # dense.
    low = np.full(_COEFFICIENTS, np.log(_LEAST))
    high = np.full(_COEFFICIENTS, measured.max())
    high[0] += 10
    low[[1, 3, 5]], high[[1, 3, 5]] = np.log(_EXPONENTS)
    drawn = np.random.default_rng(seed)
    found = []
    for _ in range(starts):
        start = np.log(np.maximum(drawn.uniform(size=_COEFFICIENTS), 0.02))
        done = least_squares(
            residuals,
            np.clip(start, low + 1e-3, high - 1e-3),
            jacobian,
            bounds=(low, high),
            loss="huber",
            # a term that fades to 0 takes ever more
            f_scale=delta,
            max_nfev=500,
            ftol=1e-9,
            xtol=1e-9,
            gtol=1e-14,
        )
        found.append((float(done.cost) / len(S), _law(done.x, unit_N, unit_D)))
    found.sort(key=lambda pair: pair[0])
    best, law = found[0]
    near = tuple(law for value, law in found if value <= 1.1 * best)
    return Fit(law, best, tuple(value for value, _ in found), near)


def huber(law: Law, S, N, D, loss, delta: float = 1e-3) -> float:
    """The mean Huber loss of the law's log losses, what `fit` makes small."""
    off = np.abs(np.log(law.loss(S, N, D)) - np.log(_positive("loss", loss)))
    return float(np.where(off > delta, delta * (off - delta / 2), off**2 / 2).mean())


def _terms(theta: np.ndarray, log_kept: np.ndarray, log_N: np.ndarray, log_D: np.ndarray):
    """The four terms of the law, three `[runs]` and a number, from the logarithms of a_s, b_s, c_s,
    b_n, e, b_d, c; the data term is `e D^-b_d`."""
    a, c, e, floor = theta[[0, 2, 4, 6]]
    b_s, b_n, b_d = np.exp(theta[[1, 3, 5]])
    return (
        np.exp(a + b_s * log_kept - b_n * log_N),
        np.exp(c - b_n * log_N),
        np.exp(e - b_d * log_D),
        np.exp(floor),
    )


def _law(theta: np.ndarray, unit_N: float, unit_D: float) -> Law:
    a_s, b_s, c_s, b_n, e, b_d, c = np.exp(theta).tolist()
    return Law(a_s, b_s, c_s, b_n, e ** (1 / b_d), b_d, c).in_units(1 / unit_N, 1 / unit_D)


def _sparsity(S) -> np.ndarray:
    S = np.asarray(S, dtype=np.float64)
    if not ((S >= 0) & (S < 1)).all():
        raise UserError(f"S holds {_outside(S, (S >= 0) & (S < 1))}; use sparsities in [0, 1)")
    return S


def _positive(name: str, values) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not (ok := (values > 0) & np.isfinite(values)).all():
        raise UserError(f"{name} holds {_outside(values, ok)}; use finite numbers above 0")
    return values


def _outside(values: np.ndarray, ok: np.ndarray) -> str:
    return f"{values[~ok].flat[0]:g}" if values.ndim else f"{values:g}"

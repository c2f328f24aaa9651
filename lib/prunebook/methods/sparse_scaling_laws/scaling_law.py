"""The scaling law of sparse pre-training.

Frantar et al., Scaling Laws for Sparsely-Connected Foundation Models (ICLR 2024, arXiv 2309.08520).
S is the fraction of zeros in [0, 1), N the number of non-zero weights outside embeddings, D the
amount of data (tokens). `law_fit` fits the law, and `optimal_sparsity` finds its best sparsity.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from ...errors import UserError


@dataclass(frozen=True)
class Law:
    """`L(S, N, D) = (a_S (1 - S)^b_S + c_S) N^-b_N + (a_D / D)^b_D + c`, e.g. in nats a token.

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
            is_exponent = name.startswith("b")
            is_allowed = isinstance(value, int | float) and 0 <= value < math.inf
            if is_allowed and not (is_exponent and value == 0):
                continue
            least = ">= 0"
            if is_exponent:
                least = "> 0"
            raise UserError(
                f"{name} {value!r} is not allowed in a law; use a finite number {least}"
            )

    def loss(self, S: ArrayLike, N: ArrayLike, D: ArrayLike) -> np.ndarray:
        """The loss after training.

        Args:
            S: fraction of zeros.
            N: number of non-zero weights.
            D: amount of data.

        Raises:
            UserError: S outside [0, 1), N or D not above 0.
        """
        S = check_sparsity(S)
        N = check_positive("N", N)
        D = check_positive("D", D)
        # Sparsity scales the capacity term alone; the data term and c are those of dense models.
        return self._capacity(S) * N**-self.b_n + (self.a_d / D) ** self.b_d + self.c

    def gain(self, S: ArrayLike) -> np.ndarray:
        """How many dense weights a non-zero weight is worth; 1 at S = 0.

        It is `((a_S (1 - S)^b_S + c_S) / (a_S + c_S))^(-1 / b_N)`.

        Args:
            S: fraction of zeros.

        Raises:
            UserError: S outside [0, 1).
        """
        return (self._capacity(check_sparsity(S)) / self._capacity(0.0)) ** (-1 / self.b_n)

    @property
    def largest_gain(self) -> float:
        """The limit of `gain` as S goes to 1, `(1 + a_S / c_S)^(1 / b_N)`."""
        if not self.c_s:
            return math.inf
        return (1 + self.a_s / self.c_s) ** (1 / self.b_n)

    def in_units(self, of_N: float, of_D: float) -> "Law":
        """The same law for N and D counted in other units.

        Args:
            of_N: unit of N in weights, e.g. 1e6.
            of_D: unit of D in tokens, e.g. 1e9.

        Raises:
            UserError: a unit not above 0.
        """
        scale = float(check_positive("of_N", of_N)) ** -self.b_n
        a_d = self.a_d / float(check_positive("of_D", of_D))
        return Law(self.a_s * scale, self.b_s, self.c_s * scale, self.b_n, a_d, self.b_d, self.c)

    def _capacity(self, S: np.ndarray | float) -> np.ndarray | float:
        """The factor of `N^-b_N`, which falls to c_S as S goes to 1."""
        return self.a_s * (1 - S) ** self.b_s + self.c_s


def check_sparsity(S: ArrayLike) -> np.ndarray:
    """S as float64, all of it in [0, 1).

    Raises:
        UserError: a value outside.
    """
    S = np.asarray(S, dtype=np.float64)
    inside = (S >= 0) & (S < 1)
    if not inside.all():
        raise UserError(f"S holds {_first_outside(S, inside)}; use sparsities in [0, 1)")
    return S


def check_positive(name: str, values: ArrayLike) -> np.ndarray:
    """The values as float64, all of them finite and above 0.

    Args:
        name: what the message calls them.
        values: a number or an array.

    Raises:
        UserError: a value that is not.
    """
    values = np.asarray(values, dtype=np.float64)
    inside = (values > 0) & np.isfinite(values)
    if not inside.all():
        raise UserError(
            f"{name} holds {_first_outside(values, inside)}; use finite numbers above 0"
        )
    return values


def _first_outside(values: np.ndarray, inside: np.ndarray) -> str:
    """The first of the values that are not inside, for a message."""
    return f"{values[~inside].flat[0]:g}"

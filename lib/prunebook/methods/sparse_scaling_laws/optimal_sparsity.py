"""The sparsity that is best for a budget of training, by the scaling law of sparse pre-training.

Frantar et al., Scaling Laws for Sparsely-Connected Foundation Models (ICLR 2024, arXiv 2309.08520).
S is the fraction of zeros in [0, 1), N the number of non-zero weights outside embeddings, D the
amount of data (tokens), C a training cost in floating-point operations.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from .scaling_law import Law, check_positive


def dense_cost(S: ArrayLike) -> ArrayLike:
    """Training cost over that of the final non-zeros, if zeros save nothing: the dense parent's.

    Args:
        S: fraction of zeros.
    """
    return 1 / (1 - S)


def sparse_cost(S: ArrayLike, ramp_start: float = 0.25, ramp_end: float = 0.75) -> ArrayLike:
    """Training cost over that of the final non-zeros, if every zero saves its share.

    Args:
        S: fraction of zeros.
        ramp_start: share of training after which the sparsity grows, on a cubic ramp.
        ramp_end: share of training at which it stops.
    """
    # Dense before the ramp, 0.75 S zeros in the mean on it, S zeros after it.
    on_ramp = (ramp_end - ramp_start) * (1 - 0.75 * S)
    return (ramp_start + on_ramp + (1 - ramp_end) * (1 - S)) / (1 - S)


def optimal_sparsity(law: Law, N: ArrayLike, C: ArrayLike) -> np.ndarray:
    """The sparsity of least loss where training costs what the dense parent costs.

    Args:
        law: the law, with D in tokens.
        N: number of non-zero weights.
        C: training cost in floating-point operations.

    Raises:
        UserError: N or C not above 0.
    """
    N = check_positive("N", N)
    C = check_positive("C", C)
    # Zeros are of no use.
    if not law.a_s:
        return np.zeros(np.broadcast_shapes(N.shape, C.shape))
    # The derivative of L(S, N, C (1 - S) / 6 N) by 1 - S is zero at
    # (1 - S)^(b_S + b_D) = b_D / b_S * N^b_N / a_S * (6 N a_D / C)^b_D.
    kept = law.b_d / law.b_s * N**law.b_n / law.a_s * (6 * N * law.a_d / C) ** law.b_d
    # A dense model is best where that is beyond 1.
    return np.maximum(0.0, 1 - kept ** (1 / (law.b_s + law.b_d)))


def optimal_sparsity_at_cost(
    law: Law, N: float, C: float, cost: Callable[[float], float] = sparse_cost
) -> float:
    """The sparsity of least loss for any cost of a final non-zero, found numerically.

    With both costs of this module the loss is convex in log(1 - S), so that the minimum found is
    the only one.

    Args:
        law: the law, with D in tokens.
        N: number of non-zero weights.
        C: training cost in floating-point operations.
        cost: S -> training cost over that of the final non-zeros.

    Returns:
        The sparsity, at most 1 - 1e-6.

    Raises:
        UserError: N or C not above 0.
    """
    N = float(check_positive("N", N))
    C = float(check_positive("C", C))

    def loss_at(log_kept: float) -> float:
        S = -math.expm1(log_kept)
        # the data that the cost pays for: D = C / (6 N m(S))
        return law.loss(S, N, C / (6 * N * cost(S)))

    minimum = minimize_scalar(
        loss_at, bounds=(math.log(1e-6), 0.0), method="bounded", options={"xatol": 1e-10}
    )
    # The search stays inside its bounds; the dense end is asked for by itself.
    if loss_at(0.0) <= minimum.fun:
        return 0.0
    return -math.expm1(minimum.x)

"""The layer-wise Hessian `H = X^T X` and its inverse factor, on which the OBS family builds.

Frantar and Alistarh, SparseGPT (arXiv 2301.00774), section 3; official code IST-DASLab/sparsegpt at
147d215.
"""

import torch
import torch.nn.functional as F

from ..errors import UserError
from ..precision import rounded_linear

_PANEL = 288  # rows of H a product; smaller ones save work but run slower


def add_gram(total: torch.Tensor, inputs: torch.Tensor, precision: str = "exact") -> None:
    """Add the sum over tokens of `x x^T` to the lower triangle of `total`, float32 `[width,
    width]`.

    Panels of rows: little more than half the work of a full product. What stands above the diagonal
    is undefined.

    Args:
        inputs: `[..., width]` of any float dtype.
        precision: `fast` rounds inputs to bfloat16, which is what a `fast` linear multiplies; sums
            stay in float32.
    """
    product = F.linear
    if precision == "fast" and inputs.device.type == "cpu" and inputs.numel():
        inputs = inputs.to(torch.bfloat16)
        product = rounded_linear
    features = inputs.reshape(-1, inputs.shape[-1]).float().T.contiguous()
    panel = max(_PANEL, len(features) // 8)
    for start in range(0, len(features), panel):
        stop = start + panel
        total[start:stop, :stop] += product(features[start:stop], features[:stop])


def symmetric(lower: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix `[n, n]` of which `lower` holds the lower triangle, as `add_gram` leaves
    it.

    Its upper half is written panel by panel: a whole transpose would miss a CPU's caches at every
    entry.
    """
    full = lower.clone()
    for start in range(0, len(lower), _PANEL):
        panel = slice(start, start + _PANEL)
        full[:start, panel] = lower[panel, :start].T
        corner = lower[panel, panel]
        full[panel, panel] = corner.tril() + corner.tril(-1).T
    return full


class Hessian:
    """`2/N` times the sum over tokens of `x x^T` for the input of a linear, N sequences, float32
    `[in, in]`.

    `precision` is that of `add_gram`.
    """

    def __init__(self, width: int, device: torch.device, precision: str = "exact"):
        self._precision = precision
        self._sum = torch.zeros(width, width, device=device)
        self._sequences = 0

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        self._sequences += len(inputs) if inputs.ndim == 3 else 1
        add_gram(self._sum, inputs, self._precision)

    def is_finite(self) -> bool:
        # NaN and infinity square to themselves
        return bool(torch.isfinite(self._sum.diagonal()).all())

    def matrix(self) -> torch.Tensor:
        """The symmetric matrix, float32 `[in, in]`."""
        return symmetric(self._sum).mul_(2 / self._sequences)


def inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper triangular `U` with `(H + lambda I)^-1 = U^T U`, `lambda = damping * mean(diag H)`.

    With J the reversal of the index order and `L = cholesky(J H J)`, the matrix `A = J L J` is
    upper triangular with `H = A A^T`, so `U = A^-1`: one factorisation and one triangular inverse.

    Args:
        hessian: `[in, in]`, symmetric, with a positive diagonal.
        damping: fraction of the mean diagonal.

    Raises:
        UserError: the damped matrix is not positive definite.
    """
    damped = hessian.clone()
    damped.diagonal().add_(damping * hessian.diagonal().mean())
    factor, info = torch.linalg.cholesky_ex(damped.flip(0, 1))
    if info:
        raise UserError(
            f"the Hessian [{len(hessian)}, {len(hessian)}] is not positive definite with "
            f"damping {damping}; "
            "use more calibration tokens or a larger damping such as 0.1"
        )
    upper = factor.flip(0, 1)
    identity = torch.eye(len(upper), dtype=upper.dtype, device=upper.device)
    return torch.linalg.solve_triangular(upper, identity, upper=True)


def obs_score(weight: torch.Tensor, factor_diagonal: torch.Tensor) -> torch.Tensor:
    """`W_ij^2 / U_jj^2`: the error of removing a weight when only later columns may compensate.

    SparseGPT, algorithm 1 (equation 3 with the Cholesky factor's diagonal in place of the
    inverse's).

    Args:
        weight: `[out, in]`.
        factor_diagonal: `[in]`, the diagonal of `U`.
    """
    return weight.square() / factor_diagonal.square()

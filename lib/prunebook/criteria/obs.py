"""The layer-wise Hessian `H = X^T X` and its inverse factor, on which the OBS family builds.

Frantar and Alistarh, SparseGPT (arXiv 2301.00774), section 3; official code IST-DASLab/sparsegpt at
147d215.
"""

import torch

from ..errors import UserError


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
            f"the Hessian [{len(hessian)}, {len(hessian)}] is not positive definite with damping "
            f"{damping}; use more calibration tokens or a larger damping such as 0.1"
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

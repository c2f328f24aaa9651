"""The factor of the inverse Hessian and the score that optimal-brain-surgeon methods build on.

The Hessian of a layer is `H = X^T X` over its calibration inputs. Frantar and Alistarh,
SparseGPT (arXiv 2301.00774), section 3; official code IST-DASLab/sparsegpt at 147d215.
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
    # H + lambda I
    damped = hessian.clone()
    damped.diagonal().add_(damping * hessian.diagonal().mean())
    # L = cholesky(J H J): reversing rows and columns is the product with J on both sides.
    factor, info = torch.linalg.cholesky_ex(damped.flip(0, 1))
    if info:
        raise UserError(
            f"the Hessian [{len(hessian)}, {len(hessian)}] is not positive definite with damping "
            f"{damping}; use more calibration tokens or a larger damping such as 0.1"
        )
    # A = J L J, upper triangular with H = A A^T
    upper = factor.flip(0, 1)
    # U = A^-1, since (H + lambda I)^-1 = A^-T A^-1
    identity = torch.eye(len(upper), dtype=upper.dtype, device=upper.device)
    return torch.linalg.solve_triangular(upper, identity, upper=True)


def obs_score(weight: torch.Tensor, factor_diagonal: torch.Tensor) -> torch.Tensor:
    """`W_ij^2 / U_jj^2`: the error of removing a weight when only later columns may compensate.

    It is the score of SparseGPT's algorithm 1: equation 3 with the diagonal of the Cholesky factor
    in place of that of the inverse, and therefore squared.

    Args:
        weight: `[out, in]`.
        factor_diagonal: `[in]`, the diagonal of `U`.

    Returns:
        `[out, in]`.
    """
    return weight.square() / factor_diagonal.square()

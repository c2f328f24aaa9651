"""SparseGPT's algorithm 1: prune columns from left to right; later columns make up for the error.

Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot
(arXiv 2301.00774); official code IST-DASLab/sparsegpt at 147d215. The loop over the columns of one
block is `kernels.sparsegpt_block`.
"""

from collections.abc import Sequence

import torch

from ...criteria.obs import inverse_factor, obs_score
from ...errors import UserError
from ...kernels.sparsegpt_block import sparsegpt_block
from ...sparsity.patterns import (
    ExactCount,
    NofM,
    Pattern,
    Unstructured,
    check_width,
    keep_mask,
)


def sparsegpt_update(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    pattern: Pattern,
    damping: float = 0.01,
    block_size: int = 128,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prune and update one weight.

    Args:
        weight: `[out, in]`.
        hessian: `[in, in]`, X^T X at any scale.
        pattern: n:m, or a fraction or count, compared over all rows of a block of columns.
        damping: lambda as a fraction of the mean of diag(H).
        block_size: columns that share a threshold.

    Returns:
        The new weight, float32 `[out, in]`, and its mask, bool `[out, in]`, True where kept.

    Raises:
        UserError: the same as for `sparsegpt_sweep`.
    """
    return sparsegpt_sweep([weight], hessian, [pattern], damping, block_size)[0]


@torch.no_grad()
def sparsegpt_sweep(
    weights: Sequence[torch.Tensor],
    hessian: torch.Tensor,
    patterns: Sequence[Pattern],
    damping: float,
    block_size: int,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Prune and update weights that read the same input (algorithm 1).

    Their rows are stacked and swept together; each weight has thresholds of its own.

    Args:
        weights: `[out, in]` each.
        hessian: `[in, in]`, X^T X at any scale.
        patterns: the pattern of each weight; n:m is the same for all.
        damping: lambda as a fraction of the mean of diag(H).
        block_size: B_s, columns that share a threshold, and B, columns between lazy updates.

    Returns:
        For each weight the new one, float32 `[out, in]`, and its mask, bool `[out, in]`.

    Raises:
        UserError: the damped Hessian is not positive definite, weights or Hessian are not finite,
            or n:m does not divide the width.
    """
    for weight, pattern in zip(weights, patterns, strict=True):
        check_width(weight.shape[1], pattern)
    # W and its mask M are transposed, [in, rows of all weights]: a column is contiguous.
    rows = [len(weight) for weight in weights]
    W = torch.cat([weight.float() for weight in weights]).T.contiguous()
    M = torch.ones_like(W, dtype=torch.bool)
    # U: upper Cholesky factor of the inverse Hessian, (H + lambda I)^-1 = U^T U.
    U = inverse_factor(_remove_dead_inputs(W, hessian), damping)
    _check_finite(W, U)
    n_of_m = None
    if isinstance(patterns[0], NofM):
        n_of_m = (patterns[0].n, patterns[0].m)
    for start in range(0, len(W), block_size):
        end = min(start + block_size, len(W))
        block = slice(start, end)
        # M <- the mask of the lowest W_ij^2 / U_jj^2, of weights as updated so far; n:m is chosen
        # inside the block, when the first of m columns is reached.
        if n_of_m is None:
            M[block] = block_mask(W[block], U.diagonal()[block], rows, patterns, (start, end))
        # Column by column: E_j <- (1 - M_j) W_j / U_jj, then W_k <- W_k - U_jk E_j up to `end`.
        E = sparsegpt_block(W[block], M[block], U[block, block], n_of_m)
        # The columns beyond the block lose its whole update at once: W <- W - E U.
        W[end:].addmm_(U[block, end:].T, E, alpha=-1)
    return list(zip(W.T.split(rows), M.T.split(rows), strict=True))


def block_mask(
    W: torch.Tensor,
    factor_diagonal: torch.Tensor,
    rows: Sequence[int],
    patterns: Sequence[Unstructured | ExactCount],
    columns: tuple[int, int],
) -> torch.Tensor:
    """The mask of one block of columns, chosen for each weight over all its rows.

    Args:
        W: float32 `[columns, rows of all weights]`, the block as updated so far.
        factor_diagonal: `[columns]`, the diagonal of U.
        rows: number of rows of each weight.
        patterns: the pattern of each weight.
        columns: first column of the block, and the one after its last.

    Returns:
        bool `[columns, rows of all weights]`, True where kept.
    """
    # W_ij^2 / U_jj^2, the error of removing a weight when later columns make up for it
    scores = obs_score(W.T, factor_diagonal).split(list(rows))
    masks = []
    for score, pattern in zip(scores, patterns, strict=True):
        masks.append(keep_mask(score, _share_of_block(pattern, len(score), *columns)))
    return torch.cat(masks).T


def _share_of_block(
    pattern: Unstructured | ExactCount, rows: int, start: int, end: int
) -> Unstructured | ExactCount:
    """What the pattern of a weight asks of its columns from `start` to before `end`."""
    if isinstance(pattern, Unstructured):
        return Unstructured(pattern.sparsity, "layer")
    # The shares of an exact count sum to it: each ends where a proportional share would.
    width = pattern.size // rows
    removed = pattern.removed * end // width - pattern.removed * start // width
    return ExactCount(removed, rows * (end - start), "layer")


def _remove_dead_inputs(W: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Zero the weights of inputs that are always 0, in place.

    Returns:
        A copy of H with 1 on its diagonal for these inputs, so that it has an inverse.
    """
    H = hessian.clone()
    dead = H.diagonal() == 0
    H.diagonal()[dead] = 1
    W[dead] = 0
    return H


def _check_finite(W: torch.Tensor, U: torch.Tensor) -> None:
    """Raise a `UserError` unless weights and factor are finite."""
    # NaN and infinity outlast a sum.
    if not torch.isfinite(W.sum() + U.sum()):
        raise UserError(
            "weights or calibration inputs hold NaN or infinity; SparseGPT needs finite ones"
        )

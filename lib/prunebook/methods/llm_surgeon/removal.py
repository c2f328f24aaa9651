"""Remove entries, rows or columns of a linear, and let the other weights make up for it.

van der Ouderaa et al., The LLM Surgeon (arXiv 2312.17244); official code
Qualcomm-AI-research/llm-surgeon at 7267344. The update for entries q is
`-F^-1_:q (F^-1_qq)^-1 theta_q` with `F^-1 = G^-1 (x) A^-1`, the step that keeps the quadratic model
of the loss lowest.
"""

import torch

from ...kernels.masking import apply_mask


def remove_rows_columns(
    weight: torch.Tensor,
    G_inverse: torch.Tensor,
    A_inverse: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    max_correlate: int | None = None,
) -> torch.Tensor:
    """The weight without some rows and columns, the rest moved to where the loss is lowest.

    The optimum for rows rho and columns kappa together is `W' = P_G W P_A` with (our derivation)
    `P_G = I - G^-1_:rho (G^-1_rho,rho)^-1 E_rho` and `P_A = I - E_kappa^T (A^-1_kappa,kappa)^-1
    A^-1_kappa,:`.

    Args:
        weight: `[out, in]`.
        G_inverse: `[out, out]`.
        A_inverse: `[in, in]`.
        rows: int64 indices of the rows that go.
        columns: int64 indices of the columns that go.
        max_correlate: None for that optimum. A number: rows, and columns, in groups of so many;
            each group's update is that of the weight as it was, and all are added (the official
            code; 1 ignores all correlations).

    Returns:
        A new weight with exact zeros in those rows and columns.
    """
    # P_G W
    new = weight - G_inverse[:, rows] @ _solve_groups(G_inverse, rows, weight, max_correlate)
    # (P_G W) P_A, or the update of W itself where updates are added
    start = new
    if max_correlate is not None:
        start = weight
    new -= (A_inverse[:, columns] @ _solve_groups(A_inverse, columns, start.T, max_correlate)).T
    new[rows] = 0
    new[:, columns] = 0
    return new


def _solve_groups(
    inverse: torch.Tensor, index: torch.Tensor, right: torch.Tensor, size: int | None
) -> torch.Tensor:
    """`inverse[q, q]^-1 right[q]` for consecutive groups q of `index`, one below the other.

    Args:
        inverse: `[n, n]`.
        index: int64 indices.
        right: `[n, k]`.
        size: indices in a group; None for one group of all.
    """
    size = min(size or len(index), len(index)) or 1
    # Groups of full size are solved in one batch, what is left over as one more.
    whole = len(index) // size * size
    solved = []
    for groups in (index[:whole].view(-1, size), index[whole:].view(1, -1)):
        if groups.numel():
            matrices = inverse[groups[:, :, None], groups[:, None, :]]
            solved.append(_solve(matrices, right[groups]).flatten(0, 1))
    if not solved:
        return right[:0]
    return torch.cat(solved)


def _solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve positive definite systems by Cholesky.

    In float64 where rounding hides that they are positive definite.

    Args:
        matrix: `[..., n, n]`.
        right: `[..., n, k]`.
    """
    lower, info = torch.linalg.cholesky_ex(matrix)
    if info.any():
        return torch.linalg.solve(matrix.double(), right.double()).to(right.dtype)
    return torch.cholesky_solve(right, lower)


def remove_elements(
    weight: torch.Tensor,
    G_inverse: torch.Tensor,
    A_inverse: torch.Tensor,
    removed: torch.Tensor,
    max_correlate: int,
) -> torch.Tensor:
    """The weight without some entries, the rest updated, one group of rows after the other.

    A group Q solves `K v = theta_Q`, `K = G^-1[q_r, q_r] * A^-1[q_c, q_c]`, and adds `-G^-1 V
    A^-1`, V holding v at Q. Later groups start from the weights as updated so far.

    Args:
        weight: `[out, in]`.
        G_inverse: `[out, out]`.
        A_inverse: `[in, in]`.
        removed: bool `[out, in]`, True where an entry goes.
        max_correlate: entries that a group holds at most; a row is never split.

    Returns:
        A new weight with exact zeros where `removed`.
    """
    # Each group starts from the weight as the groups before it left it.
    new = weight.clone()
    for first, last in _row_groups(removed.sum(1).tolist(), max_correlate):
        rows, columns = removed[first:last].nonzero(as_tuple=True)
        if not len(rows):
            continue
        K = A_inverse[columns][:, columns]
        K *= G_inverse[first:last, first:last][rows][:, rows]
        # V is zero outside the rows of the group: only those take part in the product.
        V = torch.zeros_like(new[first:last])
        V[rows, columns] = _solve(K, new[first:last][rows, columns][:, None])[:, 0]
        new.addmm_(G_inverse[:, first:last], V @ A_inverse, alpha=-1)
    return apply_mask(new, ~removed)


def _row_groups(counts: list[int], limit: int) -> list[tuple[int, int]]:
    """Consecutive rows `(first, last + 1)` that hold at most `limit` entries, or one longer row.

    Args:
        counts: entries of each row.
        limit: entries of a group.
    """
    groups = []
    first = 0
    total = 0
    for row, count in enumerate(counts):
        # A row that would exceed the limit begins a new group.
        if total + count > limit and row > first:
            groups.append((first, row))
            first = row
            total = 0
        total += count
    return [*groups, (first, len(counts))]

"""The Kronecker-factored Fisher matrix of a linear: factors, costs of removing structures, and what
the rest does then.

van der Ouderaa et al., The LLM Surgeon (arXiv 2312.17244); official code
Qualcomm-AI-research/llm-surgeon at 7267344. For `y = W a` and `g` the gradient of the loss with
respect to `y`, `F = G (x) A` with `G = E[g g^T]`, `A = E[a a^T]`, so that `F^-1 = G^-1 (x) A^-1`
and no matrix larger than a factor is needed for a row, a column or an entry.
"""

import torch
import torch.nn.functional as F

from ...errors import UserError
from ...kernels.masking import apply_mask
from ...passes.statistics import add_gram, symmetric


class SecondMoment:
    """Mean over tokens of `x x^T`, float32 `[width, width]`, and of `x` (which borders it where
    there is a bias)."""

    def __init__(self, width: int, device: torch.device):
        self._products = torch.zeros(width, width, device=device)
        self._sum = torch.zeros(width, device=device)
        self._tokens = 0
        self._inverse: tuple[tuple, torch.Tensor] | None = None

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [..., width]` of any float dtype."""
        self._inverse = None
        self._tokens += inputs.numel() // inputs.shape[-1]
        self._sum += inputs.float().flatten(0, -2).sum(0)
        add_gram(self._products, inputs)

    def is_finite(self) -> bool:
        # NaN and infinity square to themselves
        return bool(torch.isfinite(self._products.diagonal()).all())

    def matrix(self, bias: bool = False) -> torch.Tensor:
        """`E[x x^T]`; with `bias` of x with a last entry 1, `[width + 1, width + 1]`."""
        moment = symmetric(self._products)
        if bias:
            moment = torch.cat(
                [torch.cat([moment, self._sum[None]]), self._border()[:, None]], dim=1
            )
        return moment / max(1, self._tokens)

    def inverse(
        self, damping: float, alive: torch.Tensor | None = None, bias: bool = False
    ) -> torch.Tensor:
        """`damped_inverse` of those rows and columns of `matrix(bias)` that are `alive`, bool
        `[width]` (a bias has one more), by default all. The last one is kept: siblings share it,
        and so do settings tried on one statistic."""
        if alive is None:
            alive = torch.ones(len(self._sum) + bias, dtype=torch.bool, device=self._sum.device)
        key = damping, bias, alive.cpu().numpy().tobytes()
        if self._inverse is None or self._inverse[0] != key:
            index = alive.nonzero().flatten()
            self._inverse = key, damped_inverse(part_of(self.matrix(bias), index, index), damping)
        return self._inverse[1]

    def _border(self) -> torch.Tensor:
        return torch.cat([self._sum, self._sum.new_tensor([self._tokens])])


def part_of(matrix: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`matrix[rows][:, columns]` for ascending int64 indices; the matrix itself where they are all
    of them."""
    return matrix if (len(rows), len(columns)) == matrix.shape else matrix[rows][:, columns]


def damped_inverse(factor: torch.Tensor, damping: float) -> torch.Tensor:
    """`(F + lambda I)^-1`, `lambda = damping * mean(diag F)`: Cholesky in float64, result in
    float32 `[n, n]`.

    Args:
        factor: `[n, n]`, symmetric.

    Raises:
        UserError: the damped matrix is not positive definite.
    """
    damped = factor.to(torch.float64, copy=True)
    damped.diagonal().add_(damping * damped.diagonal().mean())
    lower, info = torch.linalg.cholesky_ex(damped)
    if info:
        raise UserError(
            f"a Kronecker factor [{len(factor)}, {len(factor)}] is not positive definite with "
            f"damping {damping}; use more calibration tokens or a larger damping such as 0.1"
        )
    return torch.cholesky_inverse(lower).float()


def element_costs(weight: torch.Tensor, g: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """`W_rc^2 g_r a_c / 2`: the predicted rise of the loss when one entry goes, `[out, in]`.

    Args:
        weight: `[out, in]`.
        g: `[out]`, `1 / [G^-1]_rr` where the other entries make up for it, `G_rr` where they stay.
        a: `[in]`, the same of A.
    """
    return weight.square() * (g[:, None] / 2) * a


def row_costs(weight: torch.Tensor, A: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """`W_r: A W_r:^T g_r / 2`, `[out]`: the predicted rise of the loss when one row goes; g as for
    `element_costs`."""
    # A is symmetric
    return torch.linalg.vecdot(F.linear(weight, A), weight).clamp_(min=0) * (g / 2)


def column_costs(weight: torch.Tensor, G: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """`W_:c^T G W_:c a_c / 2`, `[in]`: the predicted rise of the loss when one column goes."""
    return torch.linalg.vecdot(F.linear(weight.T, G), weight.T).clamp_(min=0) * (a / 2)


def group_costs(costs: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """The sum of the `m - n` smallest of every m consecutive costs: `[out, in]` -> `[out, in /
    m]`."""
    return costs.unflatten(1, (-1, m)).topk(m - n, dim=2, largest=False).values.sum(2)


def remove_rows_columns(
    weight, G_inverse, A_inverse, rows, columns, max_correlate: int | None = None
) -> torch.Tensor:
    """The weight without some rows and columns, the rest moved to where the quadratic model of the
    loss is lowest.

    The optimum for rows rho and columns kappa together is `W' = P_G W P_A` with (our derivation)
    `P_G = I - G^-1_:rho (G^-1_rho,rho)^-1 E_rho` and `P_A = I - E_kappa^T (A^-1_kappa,kappa)^-1
    A^-1_kappa,:`.

    Args:
        weight: `[out, in]`.
        G_inverse: `[out, out]`.
        A_inverse: `[in, in]`.
        rows, columns: int64 indices of what goes.
        max_correlate: None for that optimum. A number: rows, and columns, in groups of so many;
            each group's update is that of the weight as it was, and all are added (the official
            code; 1 ignores all correlations).

    Returns:
        A new weight with exact zeros in those rows and columns.
    """
    new = weight - G_inverse[:, rows] @ _solve_groups(G_inverse, rows, weight, max_correlate)
    start = new if max_correlate is None else weight
    new -= (A_inverse[:, columns] @ _solve_groups(A_inverse, columns, start.T, max_correlate)).T
    new[rows] = 0
    new[:, columns] = 0
    return new


def _solve_groups(
    inverse: torch.Tensor, index: torch.Tensor, right: torch.Tensor, size: int | None
) -> torch.Tensor:
    """`inverse[q, q]^-1 right[q]` for consecutive groups q of `index`, one below the other."""
    size = min(size or len(index), len(index)) or 1
    whole = len(index) // size * size
    groups = [index[:whole].view(-1, size), index[whole:].view(1, -1)]
    solved = [
        _solve(inverse[q[:, :, None], q[:, None, :]], right[q]).flatten(0, 1)
        for q in groups
        if q.numel()
    ]
    return torch.cat(solved) if solved else right[:0]


def _solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve positive definite systems by Cholesky; in float64 where rounding hides that they are
    positive definite."""
    lower, info = torch.linalg.cholesky_ex(matrix)
    if info.any():
        return torch.linalg.solve(matrix.double(), right.double()).to(right.dtype)
    return torch.cholesky_solve(right, lower)


def remove_elements(
    weight, G_inverse, A_inverse, removed: torch.Tensor, max_correlate: int
) -> torch.Tensor:
    """The weight without the entries `removed`, the rest updated; groups of rows one after the
    other.

    A group Q solves `K v = theta_Q`, `K = G^-1[q_r, q_r] * A^-1[q_c, q_c]`, and adds `-G^-1 V
    A^-1`, V holding v at Q. Later groups start from the weights as updated so far.

    Args:
        weight: `[out, in]`.
        removed: bool `[out, in]`.
        max_correlate: entries a group holds at most; a row is never split.

    Returns:
        A new weight with exact zeros where `removed`.
    """
    new = weight.clone()
    for first, last in _row_groups(removed.sum(1).tolist(), max_correlate):
        rows, columns = removed[first:last].nonzero(as_tuple=True)
        if not len(rows):
            continue
        K = A_inverse[columns][:, columns]
        K *= G_inverse[first:last, first:last][rows][:, rows]
        V = torch.zeros_like(new[first:last])
        V[rows, columns] = _solve(K, new[first:last][rows, columns][:, None])[:, 0]
        new.addmm_(G_inverse[:, first:last], V @ A_inverse, alpha=-1)
    return apply_mask(new, ~removed)


def _row_groups(counts: list[int], limit: int) -> list[tuple[int, int]]:
    """Consecutive rows `(first, last + 1)` that together hold at most `limit` entries, or one row
    that holds more."""
    groups = []
    first = 0
    total = 0
    for row, count in enumerate(counts):
        if total + count > limit and row > first:
            groups.append((first, row))
            first = row
            total = 0
        total += count
    return [*groups, (first, len(counts))]

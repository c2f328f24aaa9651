"""The Kronecker factors of the Fisher matrix of a linear, and their damped inverses.

van der Ouderaa et al., The LLM Surgeon (arXiv 2312.17244); official code
Qualcomm-AI-research/llm-surgeon at 7267344. For `y = W a` and `g` the gradient of the loss with
respect to `y`, `F = G (x) A` with `G = E[g g^T]` and `A = E[a a^T]`. Then `F^-1 = G^-1 (x) A^-1`,
so that no matrix larger than a factor is needed for a row, a column or an entry.
"""

import torch

from ...errors import UserError
from ...passes.statistics import add_gram, symmetric


class SecondMoment:
    """A factor: the mean over tokens of `x x^T`, and of `x`, which borders it for a bias.

    Args:
        width: entries of x.
        device: device of the sums, which are in float32.
    """

    def __init__(self, width: int, device: torch.device):
        self._products = torch.zeros(width, width, device=device)
        self._sum = torch.zeros(width, device=device)
        self._tokens = 0
        # the last key that `inverse` was asked for, and its result
        self._inverse: tuple[tuple, torch.Tensor] | None = None

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [..., width]` of any float dtype."""
        self._inverse = None
        self._tokens += inputs.numel() // inputs.shape[-1]
        self._sum += inputs.float().flatten(0, -2).sum(0)
        add_gram(self._products, inputs)

    def is_finite(self) -> bool:
        """Whether all inputs so far were finite."""
        # NaN and infinity square to NaN and infinity, so that the diagonal shows them.
        return bool(torch.isfinite(self._products.diagonal()).all())

    def matrix(self, bias: bool = False) -> torch.Tensor:
        """`E[x x^T]`, float32 `[width, width]`; with `bias` one entry wider.

        Args:
            bias: x has a last entry 1, which the bias multiplies.
        """
        moment = symmetric(self._products)
        if bias:
            row = self._sum[None]
            column = torch.cat([self._sum, self._sum.new_tensor([self._tokens])])[:, None]
            moment = torch.cat([torch.cat([moment, row]), column], dim=1)
        return moment / max(1, self._tokens)

    def inverse(
        self, damping: float, alive: torch.Tensor | None = None, bias: bool = False
    ) -> torch.Tensor:
        """`damped_inverse` of the rows and columns of `matrix(bias)` that are alive.

        The last result is kept: siblings share it, and so do settings tried on one statistic.

        Args:
            damping: fraction of the mean diagonal that is added to the diagonal.
            alive: bool `[width]`, one wider with a bias; None for all.
            bias: as for `matrix`.
        """
        if alive is None:
            alive = torch.ones(len(self._sum) + bias, dtype=torch.bool, device=self._sum.device)
        # The key holds all that the result depends on beside the sums.
        key = damping, bias, alive.cpu().numpy().tobytes()
        if self._inverse is None or self._inverse[0] != key:
            index = alive.nonzero().flatten()
            self._inverse = key, damped_inverse(part_of(self.matrix(bias), index, index), damping)
        return self._inverse[1]


def part_of(matrix: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`matrix[rows][:, columns]`; the matrix itself where those are all of them.

    Args:
        matrix: `[m, n]`.
        rows: ascending int64 indices.
        columns: ascending int64 indices.
    """
    if (len(rows), len(columns)) == matrix.shape:
        return matrix
    return matrix[rows][:, columns]


def damped_inverse(factor: torch.Tensor, damping: float) -> torch.Tensor:
    """`(F + lambda I)^-1` with `lambda = damping * mean(diag F)`, float32 `[n, n]`.

    Args:
        factor: `[n, n]`, symmetric.
        damping: fraction of the mean diagonal.

    Raises:
        UserError: the damped matrix is not positive definite.
    """
    # By Cholesky in float64.
    damped = factor.to(torch.float64, copy=True)
    damped.diagonal().add_(damping * damped.diagonal().mean())
    lower, info = torch.linalg.cholesky_ex(damped)
    if info:
        raise UserError(
            f"a Kronecker factor [{len(factor)}, {len(factor)}] is not positive definite with "
            f"damping {damping}; use more calibration tokens or a larger damping such as 0.1"
        )
    return torch.cholesky_inverse(lower).float()

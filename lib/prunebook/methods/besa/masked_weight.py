"""BESA's masks: a row loses its lowest ranks, and the gradient is that of a probability by rank.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (arXiv 2402.16880), section 3; official code OpenGVLab/LLMPrune-BESA at 4158d77
(`models/sparse_layers.py`).

The forward pass removes the `floor(alpha C)` lowest ranks of a row. The gradient is that of
`W (1 - P(r))` with `P(r) = sum_d beta_d [r < floor(C p_d)]` (straight through). P is never built:
weights whose ranks lie between the same two candidates share a gradient, so that one sum for each
such interval is enough. A weight costs three bytes: its rank and the number of its interval.
"""

from typing import Any

import torch

from ...sparsity.patterns import count_removed


def ranks_of(scores: torch.Tensor) -> torch.Tensor:
    """The rank of each score in its row, ascending, among equal scores by column.

    Args:
        scores: `[out, in]`.

    Returns:
        int16 `[out, in]`, int32 for rows of 2^15 weights or more.
    """
    width = scores.shape[1]
    dtype = torch.int32
    if width < 2**15:
        dtype = torch.int16
    places = torch.arange(width, dtype=dtype, device=scores.device)
    order = scores.sort(dim=1, stable=True).indices
    # The column in place r of the order has rank r.
    ranks = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    return ranks.scatter_(1, order, places.expand(scores.shape))


def intervals(width: int, candidates: torch.Tensor) -> torch.Tensor:
    """For each rank the number of candidates d with `rank < floor(C p_d)`.

    Args:
        width: C, weights of a row.
        candidates: p, `[D]`.

    Returns:
        uint8 `[C]`.
    """
    removed = torch.tensor([count_removed(width, round(p, 6)) for p in candidates.tolist()])
    return (torch.arange(width)[:, None] < removed).sum(1, dtype=torch.uint8)


class MaskedWeight(torch.autograd.Function):
    """`W * [rank >= k]`, with the gradient of `W * (1 - P(rank))` for the coefficients beta."""

    @staticmethod
    def forward(
        ctx: Any,
        beta: torch.Tensor,
        weight: torch.Tensor,
        ranks: torch.Tensor,
        numbers: torch.Tensor,
        k: torch.Tensor,
    ) -> torch.Tensor:
        """The masked weight.

        Args:
            ctx: what `backward` reads.
            beta: coefficients, `[R, D]`.
            weight: `[R, C]`.
            ranks: `[R, C]`, see `ranks_of`.
            numbers: uint8 `[R, C]`, the number of each weight's interval, see `intervals`.
            k: how many weights each row loses, `[R, 1]`, of the ranks' dtype.
        """
        ctx.save_for_backward(weight, numbers)
        ctx.candidates = beta.shape[1]
        return weight * (ranks >= k)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """dL/dbeta_d = - sum of `W_ij dL/dW_ij` over ranks below `floor(C p_d)`.

        Args:
            ctx: what `forward` has left.
            gradient: dL/dW of the masked weight, `[R, C]`.
        """
        weight, numbers = ctx.saved_tensors
        # S_b: the sum of W dL/dW over the weights of a row whose interval has the number b.
        sums = torch.zeros(len(weight), ctx.candidates + 1, device=weight.device)
        sums.scatter_add_(1, numbers.long(), gradient.float() * weight)
        # Candidates descend, so that rank < floor(C p_d) means b > d, counted from 0: the gradient
        # of beta_d is minus the sum of S_b over b > d.
        return -sums.flip(1).cumsum(1).flip(1)[:, 1:], None, None, None, None

"""BESA's rates: how much each row or layer of a block loses, and the masks that follow.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (arXiv 2402.16880), section 3; official code OpenGVLab/LLMPrune-BESA at 4158d77
(`models/sparse_layers.py`). A rate is a mixture of fixed candidates, `alpha = sum_d
beta_d p_d`. `block_training` trains the mixtures.

The forward pass removes the `floor(alpha C)` lowest ranks of a row. The gradient is that of
`W (1 - P(r))` with `P(r) = sum_d beta_d [r < floor(C p_d)]` (straight through). P is never built:
weights whose ranks lie between the same two candidates share a gradient, so that one sum for all
of them is enough. A weight costs three bytes: its rank and how many candidates reach past it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...errors import UserError
from ...kernels.masking import apply_mask
from ...sparsity.allocation import largest_remainders, shifted_rates
from ...sparsity.patterns import count_removed
from .candidates import candidate_rates

# alpha is a float32 sum: 0.49999997 of 576 weights means 288. The slack is in weights.
_SLACK = 1e-3


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


def candidates_beyond(width: int, candidates: torch.Tensor) -> torch.Tensor:
    """b: how many candidates reach past each rank, which is those d with `rank < floor(C p_d)`.

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
        beyond: torch.Tensor,
        k: torch.Tensor,
    ) -> torch.Tensor:
        """The masked weight.

        Args:
            ctx: what `backward` reads.
            beta: coefficients, `[R, D]`.
            weight: `[R, C]`.
            ranks: `[R, C]`, see `ranks_of`.
            beyond: uint8 `[R, C]`, how many candidates reach past each weight's rank, see
                `candidates_beyond`.
            k: how many weights each row loses, `[R, 1]`, of the ranks' dtype.
        """
        ctx.save_for_backward(weight, beyond)
        ctx.candidates = beta.shape[1]
        return weight * (ranks >= k)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """dL/dbeta_d = - sum of `W_ij dL/dW_ij` over ranks below `floor(C p_d)`.

        Args:
            ctx: what `forward` has saved.
            gradient: dL/dW of the masked weight, `[R, C]`.
        """
        weight, beyond = ctx.saved_tensors
        # S_b: the sum of W dL/dW over the weights of a row that b candidates reach past.
        sums = torch.zeros(len(weight), ctx.candidates + 1, device=weight.device)
        sums.scatter_add_(1, beyond.long(), gradient.float() * weight)
        # Candidates descend, so that rank < floor(C p_d) means b > d, counted from 0: the gradient
        # of beta_d is minus the sum of S_b over b > d.
        return -sums.flip(1).cumsum(1).flip(1)[:, 1:], None, None, None, None


class LearnedRates:
    """The rates of all linears of one block, and the parameters theta that they come from.

    theta is 0 at the start, so that every rate is 1/2.

    Args:
        scores: name of linear -> importance `[out, in]`, of which only the order in rows counts.
        weights: name of linear -> `[out, in]`, with the names in the same order.
        granularity: one vector of coefficients for each `row` or for each `layer`.
        sigmoid: `beta = softmax(sigmoid(theta))` as in the official code; False leaves the sigmoid
            out.
    """

    def __init__(
        self,
        scores: Mapping[str, torch.Tensor],
        weights: Mapping[str, torch.Tensor],
        granularity: str,
        sigmoid: bool,
    ):
        self.weights = dict(weights)
        self.granularity = granularity
        self.sigmoid = sigmoid
        device = next(iter(weights.values())).device
        self.candidates = candidate_rates().to(device)
        # Ranks are frozen; only how many of the lowest ranks go is learned.
        self.ranks = {name: ranks_of(scores[name]) for name in weights}
        # b: how many candidates reach past the rank of each weight.
        self.beyond = {}
        for name, ranks in self.ranks.items():
            by_rank = candidates_beyond(ranks.shape[1], self.candidates.cpu()).to(device)
            self.beyond[name] = by_rank[ranks.int()]
        self.size = sum(weight.numel() for weight in weights.values())
        # Vectors of coefficients of each linear, and the share of the block's weights of each.
        self._groups = []
        shares = []
        for weight in weights.values():
            groups = 1
            if granularity == "row":
                groups = len(weight)
            share = weight.numel() / groups / self.size
            self._groups.append(groups)
            shares.append(torch.full((groups,), share, device=device))
        self._share = torch.cat(shares)
        shape = (sum(self._groups), len(self.candidates))
        self.theta = torch.zeros(shape, device=device, requires_grad=True)

    def coefficients(self) -> torch.Tensor:
        """`beta`, `[groups, D]`: one row for each row or layer."""
        logits = self.theta
        if self.sigmoid:
            logits = logits.sigmoid()
        return logits.softmax(-1)

    def masked(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The masked weights and the mean rate of the block, both with gradients for theta.

        Returns:
            Name of linear -> `[out, in]`, and a number.
        """
        # alpha = sum_d beta_d p_d
        beta = self.coefficients()
        alpha = beta @ self.candidates
        # k = floor(alpha C), which has no gradient
        counts = self.counts_at(alpha.detach())
        masked = {}
        parts = zip(self.weights.items(), beta.split(self._groups), counts, strict=True)
        for (name, weight), coefficients, count in parts:
            ranks = self.ranks[name]
            k = count.to(ranks.dtype)[:, None]
            beta_of_rows = coefficients.expand(len(weight), -1)
            masked[name] = MaskedWeight.apply(beta_of_rows, weight, ranks, self.beyond[name], k)
        # The mean of the rates, weighted by the size of what each is for.
        return masked, alpha @ self._share

    def counts_at(self, alpha: torch.Tensor) -> list[torch.Tensor]:
        """`floor(alpha C)` for each row `[out]`, or for all rows of a layer `[1]`, by linear."""
        parts = zip(alpha.split(self._groups), self.weights.values(), strict=True)
        return [(rates * weight.shape[1] + _SLACK).floor().long() for rates, weight in parts]

    @torch.no_grad()
    def rates(self) -> dict[str, torch.Tensor]:
        """Name of linear -> the learned rate of each of its rows, `[out]`."""
        alpha = (self.coefficients() @ self.candidates).split(self._groups)
        rates = {}
        for (name, weight), rate in zip(self.weights.items(), alpha, strict=True):
            rates[name] = rate.expand(len(weight))
        return rates

    @torch.no_grad()
    def counts(self, removed: int | None = None) -> dict[str, torch.Tensor]:
        """How many weights each row loses.

        Args:
            removed: how many weights the block loses; None for what was learned, `floor(alpha C)`
                in each row.

        Returns:
            Name of linear -> int64 `[out]`; see `counts_from_rates` where `removed` is given.
        """
        rows = [len(weight) for weight in self.weights.values()]
        if removed is None:
            learned = self.counts_at(self.coefficients() @ self.candidates)
            counts = [count.expand(n) for count, n in zip(learned, rows, strict=True)]
        else:
            rates = torch.cat([*self.rates().values()]).cpu().double().numpy()
            widths = np.repeat([weight.shape[1] for weight in self.weights.values()], rows)
            counts = torch.from_numpy(counts_from_rates(rates, widths, removed)).split(rows)
        return dict(zip(self.weights, counts, strict=True))

    @torch.no_grad()
    def apply(self, counts: Mapping[str, torch.Tensor]) -> None:
        """Zero the lowest ranks of each row, in place.

        Args:
            counts: name of linear -> how many weights each row loses, `[out]`.
        """
        for name, weight in self.weights.items():
            apply_mask(weight, self.ranks[name] >= counts[name].to(weight.device)[:, None])


def counts_from_rates(rates: np.ndarray, sizes: np.ndarray, removed: int) -> np.ndarray:
    """How many weights groups lose, near the rate of each and exactly a given number in all.

    All rates are shifted by one number, within [0, 1], so that they meet the sum; then they are
    rounded by largest remainders.

    Args:
        rates: fraction that each group should lose, `[n]`.
        sizes: number of weights of each group, `[n]`.
        removed: how many weights all groups lose together.

    Returns:
        int64 `[n]`.

    Raises:
        UserError: more is to be removed than there is.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    if not 0 <= removed <= sizes.sum():
        raise UserError(f"removed {removed} is not allowed for {int(sizes.sum())} weights")
    share = sizes / sizes.sum()
    shifted = shifted_rates(np.asarray(rates), share, removed / sizes.sum(), 1.0)
    return largest_remainders(sizes * shifted, removed)

"""BESA's rates: how much each row or layer of a block loses, and the masks that follow.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (arXiv 2402.16880), section 3; official code OpenGVLab/LLMPrune-BESA at 4158d77
(`models/sparse_layers.py`). A rate is a mixture of fixed candidates, `alpha = sum_d
beta_d p_d`; `masked_weight` turns rates into masks that have a gradient, and
`block_training` trains them.
"""

from collections.abc import Mapping

import numpy as np
import torch

from ...errors import UserError
from ...kernels.masking import apply_mask
from ...sparsity.allocation import largest_remainders, shifted_rates
from .candidates import candidate_rates
from .masked_weight import MaskedWeight, intervals, ranks_of

# alpha is a float32 sum: 0.49999997 of 576 weights means 288. The slack is in weights.
_SLACK = 1e-3


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
        self.numbers = {}
        for name, ranks in self.ranks.items():
            by_rank = intervals(ranks.shape[1], self.candidates.cpu()).to(device)
            self.numbers[name] = by_rank[ranks.int()]
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
            masked[name] = MaskedWeight.apply(beta_of_rows, weight, ranks, self.numbers[name], k)
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

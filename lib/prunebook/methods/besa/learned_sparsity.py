"""How much each row or matrix of a block may lose, learned by gradient descent: the mathematics of
BESA.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (arXiv 2402.16880), section 3; official code OpenGVLab/LLMPrune-BESA at 4158d77
(`models/sparse_layers.py`).

A rate is a mixture of fixed candidates, `alpha = sum_d beta_d p_d`. The forward pass removes the
`floor(alpha C)` lowest ranks of a row; the gradient is that of the probability by rank, `P(r) =
sum_d beta_d [r < floor(C p_d)]` (straight through). P is never built: weights whose ranks lie
between the same two candidates share a gradient, so one sum for each such interval is enough, and a
weight costs three bytes, its rank and the number of its interval.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch

from ...errors import UserError
from ...kernels.masking import apply_mask
from ...sparsity.allocation import largest_remainders, shifted_rates
from ...sparsity.patterns import count_removed


def counts_from_rates(rates: np.ndarray, sizes: np.ndarray, removed: int) -> np.ndarray:
    """How many weights go from groups of `sizes` weights, int64, near `rates` of each and `removed`
    of all.

    All rates are shifted by one number, within [0, 1], so that they meet the sum; then rounded by
    largest remainders.

    Raises:
        UserError: more is to be removed than there is.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    if not 0 <= removed <= sizes.sum():
        raise UserError(f"removed {removed} is not allowed for {int(sizes.sum())} weights")
    share = sizes / sizes.sum()
    return largest_remainders(
        sizes * shifted_rates(np.asarray(rates), share, removed / sizes.sum(), 1.0), removed
    )


_SLACK = 1e-3  # of a weight; alpha is a float32 sum, and 0.49999997 of 576 is meant to be 288


def candidate_rates() -> torch.Tensor:
    """`p`, descending: 1.00, 0.99, ..., 0.01, 0; float32 `[101]`."""
    return torch.arange(100, -1, -1) / 100


def reachable(candidates: torch.Tensor) -> tuple[float, float]:
    """The open interval of rates that `beta = softmax(sigmoid(theta))` can make (our derivation).

    With a sigmoid no coefficient is e times another or more. The rate is highest where the m
    highest candidates have that weight and the others 1, for the best m.

    Args:
        candidates: `[D]`, descending.
    """

    def highest(p: np.ndarray) -> float:
        heavy = np.concatenate([[0], p.cumsum()])
        m = np.arange(len(p) + 1)
        return float(((p.sum() + (math.e - 1) * heavy) / (len(p) + (math.e - 1) * m)).max())

    p = candidates.double().numpy()
    return 1 - highest(1 - p[::-1]), highest(p)


def ranks_of(scores: torch.Tensor) -> torch.Tensor:
    """The place of each score in its row, ascending, ties by column: `[out, in]` -> int16 (int32
    for wide rows)."""
    width = scores.shape[1]
    places = torch.arange(
        width, dtype=torch.int16 if width < 2**15 else torch.int32, device=scores.device
    )
    order = scores.sort(dim=1, stable=True).indices
    return torch.empty(scores.shape, dtype=places.dtype, device=scores.device).scatter_(
        1, order, places.expand(scores.shape)
    )


def intervals(width: int, candidates: torch.Tensor) -> torch.Tensor:
    """For each rank the number of candidates with `rank < floor(C p_d)`, uint8 `[C]`."""
    removed = torch.tensor([count_removed(width, round(p, 6)) for p in candidates.tolist()])
    return (torch.arange(width)[:, None] < removed).sum(1, dtype=torch.uint8)


class MaskedWeight(torch.autograd.Function):
    """`W * [rank >= k]`, with the gradient of `W * (1 - P(rank))` for the coefficients (steps 4 and
    5 of the method).

    Arguments of `apply`: beta `[R, D]`, weight `[R, C]`, ranks `[R, C]`, interval numbers uint8
    `[R, C]`, k of the ranks' dtype `[R, 1]`. The gradient of `beta_d` is minus the sum of `W_ij
    dL/dW_ij` over ranks below `floor(C p_d)`, which for descending candidates are the weights with
    a number above d: sums by number, added up from the last.
    """

    @staticmethod
    def forward(ctx, beta, weight, ranks, numbers, k):
        ctx.save_for_backward(weight, numbers)
        ctx.candidates = beta.shape[1]
        return weight * (ranks >= k)

    @staticmethod
    def backward(ctx, gradient):
        weight, numbers = ctx.saved_tensors
        sums = torch.zeros(len(weight), ctx.candidates + 1, device=weight.device)
        sums.scatter_add_(1, numbers.long(), gradient.float() * weight)
        return -sums.flip(1).cumsum(1).flip(1)[:, 1:], None, None, None, None


class LearnedRates:
    """Rates of all linears of one block and the `theta` that they come from, zero at the start:
    every rate is 1/2.

    Args:
        scores: name of linear -> importance `[out, in]`, of which only the order within rows
            counts.
        weights: name of linear -> `[out, in]`, in the same order of names.
        by: one vector of coefficients for each `row` or each `layer`.
        smooth: `beta = softmax(sigmoid(theta))` as in the official code; False leaves the sigmoid
            out.
    """

    def __init__(
        self,
        scores: Mapping[str, torch.Tensor],
        weights: Mapping[str, torch.Tensor],
        by: str,
        smooth: bool,
    ):
        self.weights = dict(weights)
        self.smooth = smooth
        device = next(iter(weights.values())).device
        self.candidates = candidate_rates().to(device)
        self.ranks = {name: ranks_of(scores[name]) for name in weights}
        self.numbers = {
            name: intervals(rank.shape[1], self.candidates.cpu()).to(device)[rank.int()]
            for name, rank in self.ranks.items()
        }
        self.size = sum(weight.numel() for weight in weights.values())
        self._groups = [len(weight) if by == "row" else 1 for weight in weights.values()]
        self._share = torch.cat(
            [
                torch.full((groups,), weight.numel() / groups / self.size, device=device)
                for groups, weight in zip(self._groups, weights.values(), strict=True)
            ]
        )
        self.theta = torch.zeros(
            sum(self._groups), len(self.candidates), device=device, requires_grad=True
        )

    def coefficients(self) -> torch.Tensor:
        """`beta`, one row a group, `[groups, D]`."""
        return (self.theta.sigmoid() if self.smooth else self.theta).softmax(-1)

    def masked(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Name of linear -> its masked weight, and the mean rate of the block, both with gradients
        for `theta`."""
        beta = self.coefficients()
        alpha = beta @ self.candidates
        masked = {}
        parts = zip(
            self.weights, beta.split(self._groups), self._counts(alpha.detach()), strict=True
        )
        for name, coefficients, counts in parts:
            ranks = self.ranks[name]
            weight = self.weights[name]
            k = counts.to(ranks.dtype)[:, None]
            masked[name] = MaskedWeight.apply(
                coefficients.expand(len(weight), -1), weight, ranks, self.numbers[name], k
            )
        return masked, alpha @ self._share

    def _counts(self, alpha: torch.Tensor) -> list[torch.Tensor]:
        """`floor(alpha C)` for each row `[out]`, or for all rows of a layer `[1]`; one tensor a
        linear."""
        parts = zip(alpha.split(self._groups), self.weights.values(), strict=True)
        return [(rates * weight.shape[1] + _SLACK).floor().long() for rates, weight in parts]

    @torch.no_grad()
    def rates(self) -> dict[str, torch.Tensor]:
        """Name of linear -> the learned rate of each of its rows, `[out]`."""
        alpha = (self.coefficients() @ self.candidates).split(self._groups)
        return {
            n: rate.expand(len(weight))
            for (n, weight), rate in zip(self.weights.items(), alpha, strict=True)
        }

    @torch.no_grad()
    def counts(self, removed: int | None = None) -> dict[str, torch.Tensor]:
        """How many weights go from each row, by name `[out]`: `floor(alpha C)`, or, where `removed`
        is given, the nearest counts with that sum (`allocation.counts_from_rates`)."""
        rates = self.rates()
        if removed is None:
            counts = self._counts(self.coefficients() @ self.candidates)
            return {
                name: count.expand(len(rates[name]))
                for name, count in zip(rates, counts, strict=True)
            }
        widths = np.concatenate(
            [np.full(len(weight), weight.shape[1]) for weight in self.weights.values()]
        )
        flat = counts_from_rates(
            torch.cat([*rates.values()]).cpu().double().numpy(), widths, removed
        )
        parts = torch.from_numpy(flat).split([len(weight) for weight in self.weights.values()])
        return dict(zip(rates, parts, strict=True))

    @torch.no_grad()
    def bake(self, counts: Mapping[str, torch.Tensor]) -> None:
        """Zero the `counts[name] [out]` lowest ranks of each row, in place."""
        for name, weight in self.weights.items():
            apply_mask(weight, self.ranks[name] >= counts[name].to(weight.device)[:, None])


def block_loss(output: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`1/H sum_h |Y_h - Yref_h|^2 / |Yref_h|^2` over the tokens of one batch `[sequences, tokens,
    H]`, in float32."""
    reference = reference.float().flatten(0, -2)
    norms = reference.norm(dim=0)
    difference = (output.float().flatten(0, -2) - reference) / norms.masked_fill(norms == 0, 1)
    return difference.square().sum() / len(norms)

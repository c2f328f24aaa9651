"""DSnoT: how much each weight adds to the expected output, and how sure that is.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df (`lib/layerwrapper.py`).
"""

import functools

import torch

from ...criteria.obs import inverse_factor, obs_score
from ...errors import UserError
from ...passes.statistics import Hessian, InputNorm

VARIANCES = ("pooled", "within")
_DAMPING = 0.01  # of SparseGPT


class InputMoments(InputNorm):
    """Beside Wanda's norms, running sums and variances of each input feature, in float32, from
    sequences of one length.

    `sums` `[in]` is the sum over the tokens of a sequence, averaged over sequences: L times the
    mean of the feature.

    Args:
        variance: `pooled` over all tokens, or `within` sequences: around each sequence's own mean,
            averaged over sequences; to the last digit what the official code has, as swaps hang on
            it, and slower for that.

    Raises:
        UserError: an unknown variance.
    """

    def __init__(self, width: int, device: torch.device, variance: str = "pooled"):
        super().__init__(width, device)
        if variance not in VARIANCES:
            raise UserError(
                f"variance {variance!r} is unknown; use {' or '.join(map(repr, VARIANCES))}"
            )
        self._kind = variance
        self._length = 1
        self.sums, self._within, self._between = (
            torch.zeros(width, device=device) for _ in range(3)
        )

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        for n, sequence in enumerate(
            inputs.float().reshape(-1, *inputs.shape[-2:]), self.sequences + 1
        ):
            super().update(sequence)
            total = sequence.sum(0)
            L = len(sequence)
            if self._kind == "within":
                spread = sequence.var(0, correction=0)
            else:
                spread = (sequence - total / L).square_().mean(0)
            before = total - self.sums
            self.sums = self.sums * ((n - 1) / n) + total / n
            self._within = (self._within * ((n - 1) * L) + spread * L) / (n * L)
            self._between += before * (total - self.sums)  # Welford's
            self._length = L

    def variance(self) -> torch.Tensor:
        """The (biased) variance of each feature, `[in]`."""
        if self._kind == "within":
            return self._within
        return self._within + self._between / (max(1, self.sequences) * self._length**2)


class InputMomentsAndHessian(InputMoments):
    """`InputMoments` with the Hessian, for masks that start from SparseGPT's score."""

    def __init__(self, width: int, device: torch.device, variance: str = "pooled"):
        super().__init__(width, device, variance)
        self._hessian = Hessian(width, device)

    def update(self, inputs: torch.Tensor) -> None:
        super().update(inputs)
        self._hessian.update(inputs)

    def hessian(self) -> torch.Tensor:
        """`2/N` times the sum over tokens of `x x^T`, N sequences, float32 `[in, in]`."""
        return self._hessian.matrix()

    @functools.cached_property
    def _factor_diagonal(self) -> torch.Tensor:
        hessian = self.hessian()
        hessian.diagonal()[self.mean_square == 0] = 1  # dead features
        return inverse_factor(hessian, _DAMPING).diagonal()

    def obs_score(self, weight: torch.Tensor) -> torch.Tensor:
        """`obs_score` of a weight `[out, in]` as it is, 0 for dead features; linears of a group
        share the factor."""
        return obs_score(weight.float(), self._factor_diagonal) * (self.mean_square != 0)


def expected_change(weight: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """`D_ij = W_ij s_j`, float32 `[out, in]`: what the sum of an output over a sequence loses, on
    average, without a weight. Args: weight `[out, in]`; sums: s, `[in]`, see `InputMoments`."""
    return weight.float() * sums

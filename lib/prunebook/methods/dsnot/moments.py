"""DSnoT's statistics: how much each weight adds to the expected output, and how sure that is.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df (`lib/layerwrapper.py`).
"""

import functools

import torch

from ...criteria.obs import inverse_factor, obs_score
from ...errors import UserError
from ...passes.statistics import Hessian, InputNorm

VARIANCES = ("pooled", "within")
# SparseGPT's fraction of the mean of the Hessian's diagonal
_DAMPING = 0.01


class InputMoments(InputNorm):
    """Norms, sums and variances of each input feature, in float32, from sequences of one length.

    `sums` `[in]` is s: the sum over the tokens of a sequence, averaged over sequences, which is L
    times the mean of the feature.

    Args:
        width: inputs of the linear.
        device: device of the sums.
        variance: `pooled` over all tokens, or `within` sequences: around each sequence's own mean,
            averaged over sequences. Swaps depend on the last digits of a variance; `within`
            matches the official code to the last digit, and is slower.

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
        self.sums = torch.zeros(width, device=device)
        # the mean over sequences of the variance inside a sequence
        self._within = torch.zeros(width, device=device)
        # the sum over sequences of the squared distance of their sums from the mean sum
        self._between = torch.zeros(width, device=device)

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        sequences = inputs.float().reshape(-1, *inputs.shape[-2:])
        for n, sequence in enumerate(sequences, self.sequences + 1):
            super().update(sequence)
            total = sequence.sum(0)
            L = len(sequence)
            if self._kind == "within":
                variance = sequence.var(0, correction=0)
            else:
                variance = (sequence - total / L).square_().mean(0)
            # Running means over n sequences; the squared distances add up by Welford's rule.
            distance = total - self.sums
            self.sums = self.sums * ((n - 1) / n) + total / n
            self._within = (self._within * ((n - 1) * L) + variance * L) / (n * L)
            self._between += distance * (total - self.sums)
            self._length = L

    def variance(self) -> torch.Tensor:
        """v: the (biased) variance of each feature, `[in]`."""
        if self._kind == "within":
            return self._within
        # Sums are L times as large as means, their squares L^2 times.
        return self._within + self._between / (max(1, self.sequences) * self._length**2)


class InputMomentsAndHessian(InputMoments):
    """`InputMoments` and the Hessian, for masks that start from SparseGPT's score.

    Args:
        width: as for `InputMoments`, like `device` and `variance`.
    """

    def __init__(self, width: int, device: torch.device, variance: str = "pooled"):
        super().__init__(width, device, variance)
        self._hessian = Hessian(width, device)

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        super().update(inputs)
        self._hessian.update(inputs)

    def hessian(self) -> torch.Tensor:
        """`2/N` times the sum over tokens of `x x^T`, N sequences, float32 `[in, in]`."""
        return self._hessian.matrix()

    @functools.cached_property
    def _factor_diagonal(self) -> torch.Tensor:
        """The diagonal of SparseGPT's factor; linears that read one input share it."""
        hessian = self.hessian()
        # An input that is always 0 gets a 1, so that the matrix has an inverse.
        hessian.diagonal()[self.mean_square == 0] = 1
        return inverse_factor(hessian, _DAMPING).diagonal()

    def obs_score(self, weight: torch.Tensor) -> torch.Tensor:
        """SparseGPT's score of the original weights, 0 for inputs that are always 0.

        Args:
            weight: `[out, in]`.

        Returns:
            float32 `[out, in]`.
        """
        return obs_score(weight.float(), self._factor_diagonal) * (self.mean_square != 0)


def expected_change(weight: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """`D_ij = W_ij s_j`: what the sum of an output over a sequence loses, on average, without a
    weight.

    Args:
        weight: `[out, in]`.
        sums: s, `[in]`, see `InputMoments`.

    Returns:
        float32 `[out, in]`.
    """
    return weight.float() * sums

"""Wanda: weight magnitude times the norm of the input it multiplies.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models (arXiv 2306.11695),
equation 1; official code locuslab/wanda at 8e8fc87.
"""

import torch

from ..kernels.scores import Factors


class SquaredNorm:
    """Running mean over sequences of the squared l2 norm of each input feature, in float32.

    The mean instead of the paper's sum divides every score of a layer by the same constant, so no
    mask depends on it; it keeps the numbers small however much text there is. `fast` sums squares
    directly, several times as fast on a CPU as the norm, whose digits are those of the official
    code.
    """

    def __init__(self, width: int, device: torch.device, precision: str = "exact"):
        self._precision = precision
        self.mean_square = torch.zeros(width, device=device)
        self.sequences = 0

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        inputs = inputs.float().reshape(-1, *inputs.shape[-2:])
        self.mean_square *= self.sequences / (self.sequences + len(inputs))
        self.sequences += len(inputs)
        self.mean_square += self._squares(inputs).sum(0) / self.sequences

    def _squares(self, inputs: torch.Tensor) -> torch.Tensor:
        """Sum over tokens of the squares, float32 `[sequences, in]`."""
        if self._precision == "fast" and inputs.device.type == "cpu":
            return inputs.square().sum(1)
        return torch.linalg.vector_norm(inputs, dim=1).square_()

    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.mean_square).all())

    def norm(self) -> torch.Tensor:
        """`||X_j||_2 / sqrt(sequences)`, float32 `[in]`."""
        return self.mean_square.sqrt()


def wanda_score(weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """`S_ij = |W_ij| * ||X_j||_2` (equation 1).

    Args:
        weight: `[out, in]`.
        norm: `[in]`, the norm of each input feature over the calibration tokens.

    Returns:
        float32 `[out, in]`.
    """
    return weight.abs().float() * norm.float()


def wanda_factors(weight: torch.Tensor, norm: torch.Tensor) -> Factors:
    """`wanda_score` as kernels take it: what the magnitude is multiplied with."""
    return Factors(columns=norm.float())

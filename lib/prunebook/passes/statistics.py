"""What is gathered about the inputs of a linear while passes run: norms and second moments.

`InputNorm` is what Wanda needs (Sun et al., arXiv 2306.11695), `Hessian` what SparseGPT needs (Frantar and Alistarh,
arXiv 2301.00774, section 3)."""

import torch
import torch.nn.functional as F

from .precision import rounded_linear

_PANEL = 288  # rows of H a product; smaller ones save work but run slower


def add_gram(total: torch.Tensor, inputs: torch.Tensor, precision: str = "exact") -> None:
    """Add the sum over tokens of `x x^T` to the lower triangle of `total`, float32 `[width,
    width]`.

    Panels of rows: little more than half the work of a full product. What stands above the diagonal
    is undefined.

    Args:
        inputs: `[..., width]` of any float dtype.
        precision: `fast` rounds inputs to bfloat16, which is what a `fast` linear multiplies; sums
            stay in float32.
    """
    product = F.linear
    if precision == "fast" and inputs.device.type == "cpu" and inputs.numel():
        inputs = inputs.to(torch.bfloat16)
        product = rounded_linear
    features = inputs.reshape(-1, inputs.shape[-1]).float().T.contiguous()
    panel = max(_PANEL, len(features) // 8)
    for start in range(0, len(features), panel):
        stop = start + panel
        total[start:stop, :stop] += product(features[start:stop], features[:stop])


def symmetric(lower: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix `[n, n]` of which `lower` holds the lower triangle, as `add_gram` leaves
    it.

    Its upper half is written panel by panel: a whole transpose would miss a CPU's caches at every
    entry.
    """
    full = lower.clone()
    for start in range(0, len(lower), _PANEL):
        panel = slice(start, start + _PANEL)
        full[:start, panel] = lower[panel, :start].T
        corner = lower[panel, panel]
        full[panel, panel] = corner.tril() + corner.tril(-1).T
    return full


class Hessian:
    """`2/N` times the sum over tokens of `x x^T` for the input of a linear, N sequences, float32
    `[in, in]`.

    `precision` is that of `add_gram`.
    """

    def __init__(self, width: int, device: torch.device, precision: str = "exact"):
        self._precision = precision
        self._sum = torch.zeros(width, width, device=device)
        self._sequences = 0

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        self._sequences += len(inputs) if inputs.ndim == 3 else 1
        add_gram(self._sum, inputs, self._precision)

    def is_finite(self) -> bool:
        # NaN and infinity square to themselves
        return bool(torch.isfinite(self._sum.diagonal()).all())

    def matrix(self) -> torch.Tensor:
        """The symmetric matrix, float32 `[in, in]`."""
        return symmetric(self._sum).mul_(2 / self._sequences)


class InputNorm:
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

"""What is gathered about the inputs of a linear while passes run: norms and second moments.

`InputNorm` is what Wanda needs (Sun et al., arXiv 2306.11695), `Hessian` what SparseGPT needs
(Frantar and Alistarh, arXiv 2301.00774, section 3).
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F

from .hooks import PreHook
from .precision import rounded_linear

# Rows of the Gram matrix that one product computes: smaller panels save work but run slower.
_PANEL_ROWS = 288


class Statistic(Protocol):
    """What is gathered about the input of a linear; made by `factory(width, device)`."""

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` of one batch."""

    def is_finite(self) -> bool:
        """Whether all inputs so far were finite."""


def add_gram(total: torch.Tensor, inputs: torch.Tensor, precision: str = "exact") -> None:
    """Add the sum over tokens of `x x^T` to the lower triangle of `total`.

    The product is computed in panels of rows, which is little more than half the work of a full
    product. The entries above the diagonal are undefined.

    Args:
        total: float32 `[width, width]`, changed in place.
        inputs: `[..., width]` of any float dtype.
        precision: `fast` rounds inputs to bfloat16, which is what a `fast` linear multiplies; sums
            stay in float32.
    """
    product = F.linear
    if precision == "fast" and inputs.device.type == "cpu" and inputs.numel():
        inputs = inputs.to(torch.bfloat16)
        product = rounded_linear
    # x^T, float32 [width, tokens]: a row for each feature
    features = inputs.reshape(-1, inputs.shape[-1]).float().T.contiguous()
    rows = max(_PANEL_ROWS, len(features) // 8)
    for start in range(0, len(features), rows):
        stop = start + rows
        # The panel needs no column to the right of its own rows: they are above the diagonal.
        total[start:stop, :stop] += product(features[start:stop], features[:stop])


def symmetric(lower: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix of a lower triangle.

    Its upper half is written panel by panel: a whole transpose would miss a CPU's caches at every
    entry.

    Args:
        lower: `[n, n]`, as `add_gram` leaves it; what is above the diagonal is ignored.

    Returns:
        A new matrix `[n, n]`.
    """
    full = lower.clone()
    for start in range(0, len(lower), _PANEL_ROWS):
        panel = slice(start, start + _PANEL_ROWS)
        # above the diagonal blocks: the transpose of this panel's columns to their left
        full[:start, panel] = lower[panel, :start].T
        # the diagonal block, whose own upper half is undefined in `lower`
        corner = lower[panel, panel]
        full[panel, panel] = corner.tril() + corner.tril(-1).T
    return full


class Hessian:
    """`2/N` times the sum over tokens of `x x^T`, for N sequences of inputs of a linear.

    Args:
        width: inputs of the linear.
        device: device of the sums.
        precision: see `add_gram`.
    """

    def __init__(self, width: int, device: torch.device, precision: str = "exact"):
        self._precision = precision
        self._sum = torch.zeros(width, width, device=device)
        self._sequences = 0

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        sequences = 1
        if inputs.ndim == 3:
            sequences = len(inputs)
        self._sequences += sequences
        add_gram(self._sum, inputs, self._precision)

    def is_finite(self) -> bool:
        """Whether all inputs so far were finite."""
        # NaN and infinity square to NaN and infinity, so that the diagonal shows them.
        return bool(torch.isfinite(self._sum.diagonal()).all())

    def matrix(self) -> torch.Tensor:
        """The symmetric matrix, float32 `[in, in]`."""
        return symmetric(self._sum).mul_(2 / self._sequences)


class InputNorm:
    """Running mean over sequences of the squared l2 norm of each input feature, in float32.

    The mean instead of the paper's sum divides every score of a layer by the same constant, so no
    mask depends on it; it keeps the numbers small however much text there is.

    Args:
        width: inputs of the linear.
        device: device of the mean.
        precision: `exact` squares the norm, whose digits are those of the official code; `fast`
            sums the squares directly, which is several times as fast on a CPU.
    """

    def __init__(self, width: int, device: torch.device, precision: str = "exact"):
        self._precision = precision
        self.mean_square = torch.zeros(width, device=device)
        self.sequences = 0

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` (or `[tokens, in]`, one sequence) of any float
        dtype."""
        inputs = inputs.float().reshape(-1, *inputs.shape[-2:])
        # the mean over all sequences so far, from that over those before this batch
        self.mean_square *= self.sequences / (self.sequences + len(inputs))
        self.sequences += len(inputs)
        # plus the share of this batch
        self.mean_square += self._squares(inputs).sum(0) / self.sequences

    def _squares(self, inputs: torch.Tensor) -> torch.Tensor:
        """Sum over tokens of the squares, float32 `[sequences, in]`."""
        if self._precision == "fast" and inputs.device.type == "cpu":
            return inputs.square().sum(1)
        return torch.linalg.vector_norm(inputs, dim=1).square_()

    def is_finite(self) -> bool:
        """Whether all inputs so far were finite."""
        return bool(torch.isfinite(self.mean_square).all())

    def norm(self) -> torch.Tensor:
        """`||X_j||_2 / sqrt(sequences)`, float32 `[in]`."""
        return self.mean_square.sqrt()


class EndOfPassError(Exception):
    """Ends a forward pass early, once everything that it was run for has been observed."""


class InputCollector:
    """The hooks that gather one statistic for each distinct input of a block's linears.

    Linears that read one and the same tensor form a group; the first of them to run leads it, and
    its statistic is that of the group.

    Args:
        factory: `(width, device)` -> a new statistic.
        update: `(statistic, inputs)`, which takes the inputs of one batch.
    """

    def __init__(
        self,
        factory: Callable[[int, torch.device], Statistic],
        update: Callable[[Statistic, torch.Tensor], None],
    ):
        self._factory = factory
        self._update = update
        self._first_inputs: list[torch.Tensor] = []
        self.groups: list[list[str]] = []
        self.statistics: dict[str, Statistic] = {}

    def discovering_hooks(self, names: Iterable[str]) -> dict[str, PreHook]:
        """Hooks of the first batch by name of linear: they form the groups."""
        return {name: self._discover(name) for name in names}

    def end_discovery(self) -> bool:
        """Whether the batch before formed groups; its inputs are no longer needed and let go."""
        formed_groups = bool(self._first_inputs)
        self._first_inputs.clear()
        return formed_groups

    def leading_hooks(self, stop_at_last: bool) -> dict[str, PreHook]:
        """Hooks of all later batches by name of leading linear.

        Args:
            stop_at_last: end the pass at the last leading linear, whose output nobody needs.
        """
        last = None
        if stop_at_last:
            last = next(reversed(self.statistics), None)
        return {name: self._observe(name, name == last) for name in self.statistics}

    def _discover(self, name: str) -> PreHook:
        def hook(_, inputs):
            x = inputs[0]
            for group, first_input in zip(self.groups, self._first_inputs, strict=True):
                if first_input is x:
                    group.append(name)
                    return
            self.groups.append([name])
            # The tensor is held, so that no later one can be mistaken for it.
            self._first_inputs.append(x)
            self.statistics[name] = self._factory(x.shape[-1], x.device)
            self._update(self.statistics[name], x)

        return hook

    def _observe(self, name: str, is_last: bool) -> PreHook:
        def hook(_, inputs):
            self._update(self.statistics[name], inputs[0])
            if is_last:
                raise EndOfPassError

        return hook

"""One number for each unit from its activations: an aggregation over tokens, then over samples.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (Minitron,
NeurIPS 2024, arXiv 2407.14679), section 2.2. The choices are the mean of absolute values, the l2
norm and the variance.
"""

from collections.abc import Callable

import torch

# name -> aggregation over the tokens of each sample, [n, tokens, units] -> [n, units]
TOKEN_AGGREGATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda s: s.abs().mean(1),
    "l2": lambda s: s.norm(dim=1),
    "var": lambda s: s.var(1, correction=0),
}
# The same over samples is computed from running sums.
SAMPLE_AGGREGATIONS = tuple(TOKEN_AGGREGATIONS)


class Aggregated:
    """Aggregations of every channel of an input, and of the norms of its heads.

    Sums are in float64, a sample at a time, so that scores do not depend on how windows are
    batched.

    Args:
        width: channels of the input.
        head_dim: channels of a head; heads are left out where they do not divide the width.
        sample_aggregation: over samples, `mean`, `l2` or `var`.
        token_aggregation: over the tokens of a sample, one of the same.
    """

    def __init__(self, width: int, head_dim: int, sample_aggregation: str, token_aggregation: str):
        self._head_dim = head_dim
        self._has_heads = width % head_dim == 0
        self._sample_aggregation = sample_aggregation
        self._over_tokens = TOKEN_AGGREGATIONS[token_aggregation]
        self._samples = 0
        # kind of unit -> sum, and sum of squares, over samples
        self._sums: dict[str, tuple] = {}

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [samples, tokens, width]` of any float dtype."""
        inputs = inputs.float()
        self._samples += len(inputs)
        self._add("channels", inputs)
        if self._has_heads:
            # ||Attn_i(x_t)||_2, the norm of each head at each token
            self._add("heads", inputs.unflatten(-1, (-1, self._head_dim)).norm(dim=-1))

    def _add(self, kind: str, values: torch.Tensor) -> None:
        """Add samples `values [samples, tokens, units]` to the sums of one kind of unit."""
        of_samples = self._over_tokens(values).double()
        total, squares = self._sums.get(kind, (0, 0))
        self._sums[kind] = total + of_samples.sum(0), squares + of_samples.square().sum(0)

    def is_finite(self) -> bool:
        """Whether all inputs so far were finite."""
        return bool(self._sums["channels"][1].isfinite().all())

    def scores(self, kind: str) -> torch.Tensor:
        """The scores of the `channels` `[width]` or the `heads` `[width / head_dim]`, float64."""
        total, squares = self._sums[kind]
        if self._sample_aggregation == "l2":
            return squares.sqrt()
        mean = total / self._samples
        if self._sample_aggregation == "mean":
            return mean
        # Var s = E[s^2] - E[s]^2, which rounding can bring below 0.
        return (squares / self._samples - mean.square()).clamp(min=0)

"""What activations say of heads, neurons, hidden channels and blocks, all from one pass of forward
passes.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (Minitron,
NeurIPS 2024, arXiv 2407.14679), section 2.2; NVIDIA's implementation is mcore_minitron.py of
Model-Optimizer. As there, a neuron is read at the input of the last matrix, after activation and
gate, which settles what the paper's formula means for gated MLPs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import cosine_similarity

from ...errors import UserError
from ...models.anatomy import sublayers
from ...passes.sequential import walk

# over the tokens of a sample: [n, tokens, units] -> [n, units]
SEQUENCE: dict[str, Callable] = {
    "mean": lambda s: s.abs().mean(1),
    "l2": lambda s: s.norm(dim=1),
    "var": lambda s: s.var(1, correction=0),
}
BATCH = tuple(SEQUENCE)  # over the samples, from their running sums


class Aggregated:
    """An aggregation over tokens and then over samples: of every channel of an input, and of the
    norms of its heads.

    Sums are in float64 and a sample at a time, so that scores do not depend on how windows are
    batched.
    """

    def __init__(self, width: int, head_dim: int, batch: str, sequence: str):
        self._head_dim = head_dim if width % head_dim == 0 else None
        self._batch = batch
        self._sequence = SEQUENCE[sequence]
        self._samples = 0
        self._sums = {}

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [samples, tokens, width]`."""
        inputs = inputs.float()
        self._samples += len(inputs)
        self._add("channels", inputs)
        if self._head_dim:
            self._add("heads", inputs.unflatten(-1, (-1, self._head_dim)).norm(dim=-1))

    def _add(self, name: str, values: torch.Tensor) -> None:
        of_samples = self._sequence(values).double()
        first, second = self._sums.get(name, (0, 0))
        self._sums[name] = first + of_samples.sum(0), second + of_samples.square().sum(0)

    def is_finite(self) -> bool:
        return bool(self._sums["channels"][1].isfinite().all())

    def scores(self, name: str) -> torch.Tensor:
        """Of the `channels` `[width]` or the `heads` `[width / head_dim]`, float64."""
        first, second = self._sums[name]
        if self._batch == "l2":
            return second.sqrt()
        mean = first / self._samples
        return (
            mean if self._batch == "mean" else (second / self._samples - mean.square()).clamp(min=0)
        )


@dataclass(frozen=True)
class Importance:
    """Scores of all axes, float64; higher is more important.

    `heads` and `neurons` hold one tensor a block, `[H]` and `[m]`; `hidden` is `[d]`, summed over
    the two norms of every block; `influence` is `[L]`, 1 less the mean cosine between what enters
    and what leaves a block.
    """

    heads: list[torch.Tensor]
    neurons: list[torch.Tensor]
    hidden: torch.Tensor
    influence: torch.Tensor


@torch.no_grad()
def activation_importance(
    model,
    tokens: torch.Tensor,
    *,
    batch: str = "l2",
    sequence: str = "mean",
    head_norm: str = "token",
    precision: str = "exact",
    progress: str | None = None,
    device=None,
) -> Importance:
    """The scores of every head, neuron, hidden channel and block of the model as it is.

    Args:
        tokens: int64 `[n, length]`.
        batch, sequence: aggregations, `l2`, `mean` or `var`.
        head_norm: the norm over a head's channels is taken of each `token` before aggregation (the
            paper), or of the aggregated `channel`s (NVIDIA's code).
        precision: of the forward passes.
        progress: label of a progress bar.
        device: where blocks compute.

    Raises:
        UserError: bad tokens, an architecture without separate projections, activations that are
            not finite.
    """
    heads = []
    neurons = []
    influence = []
    hidden = torch.zeros(model.config.hidden_size, dtype=torch.float64)
    for step in walk(model, tokens, precision=precision, progress=progress, device=device):
        parts = sublayers(step.module)
        outputs = torch.empty_like(step.hidden)
        seen = step.collect(
            lambda width, _, size=parts.head_dim: Aggregated(width, size, batch, sequence),
            outputs=outputs,
        )
        # without those of emptied sublayers
        of = {linear: seen[name] for name, linear in step.linears.items()}

        def scores(linear, kind="channels", of=of):
            return (
                of[linear].scores(kind).cpu()
                if linear in of
                else torch.zeros(0, dtype=torch.float64)
            )

        by_channel = scores(parts.out).view(parts.heads, parts.head_dim).norm(dim=1)
        heads.append(scores(parts.out, "heads") if head_norm == "token" else by_channel)
        neurons.append(scores(parts.last))
        for linear in (parts.query, parts.first[0]):
            hidden = hidden + scores(linear) if linear in of else hidden
        pairs = zip(step.hidden.split(step.batch_size), outputs.split(step.batch_size), strict=True)
        cosines = [
            cosine_similarity(before.float(), after.float(), dim=-1).double()
            for before, after in pairs
        ]
        influence.append(1 - torch.cat(cosines).mean())
        step.hidden.copy_(outputs)
        step.propagated = True
    influence = torch.stack(influence).cpu()
    if not influence.isfinite().all():
        raise UserError(
            "the residual stream holds NaN or infinity; use a wider dtype such as float32"
        )
    return Importance(heads, neurons, hidden, influence)

"""The LLM Surgeon: remove what costs the loss least over all layers, and let the rest make up.

van der Ouderaa et al., The LLM Surgeon (ICLR 2024, arXiv 2312.17244); official code
Qualcomm-AI-research/llm-surgeon at 7267344, with the factors of its `--use_iad` and without LoRA.

Differences from the official code:

- Rows and columns go by their joint optimum, unless `max_correlate` is given.
- Groups of entries see the updates of earlier ones (its `--addupdate`).
- Linears that read the same input share its factor.
- A removed row takes its bias along, and no other bias is a candidate.
- Entries meet the global count exactly; `<=` there removes one more, and ties.
- n:m groups are aligned also for layers without bias.
- Costs are in nats per token, as the gradient is that of the summed loss; there it is that of the
  mean, a constant factor.
- L-OBD sees all sequences, and ranks rows by A.

Memory: two float32 matrices, `[in, in]` and `[out, out]`, for every linear of the model at once
(its inputs' shared by q/k/v and by gate/up), and a copy of the A's of siblings that lost different
columns: 1.1 GB for SmolLM2-135M, 64 GB for a 7-billion model. For entries, 4 bytes a weight for
their costs, and the logits of one batch. All of it stands where the model stands.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...models.loading import on_device
from ...passes.backward import backpropagate
from ...passes.precision import matmul_precision
from ...sparsity.patterns import Pattern, make_pattern
from ..base import Method
from .cheapest import cheapest_parts
from .fisher import SecondMoment
from .options import check_options
from .study import study_model

# name of a linear -> second moment of its inputs, and of the gradients of its outputs
Moments = tuple[dict[str, SecondMoment], dict[str, SecondMoment]]


@dataclass(frozen=True)
class LLMSurgeon(Method):
    """Pruning by a Kronecker-factored Fisher matrix, with one threshold over all layers, in shots.

    Args:
        sparsity: fraction of the weights removed, in [0, 1), met exactly for entries and up to one
            row or column else.
        pattern: n:m instead, e.g. '2:4', for entries.
        structure: `elements`, or `rows+columns` of every matrix.
        shots: T; shot t aims at `sparsity * t / T` (n:m: a fraction t / T of the groups) with new
            factors.
        damping: fraction of a factor's mean diagonal that is added to its diagonal before its
            inverse.
        max_correlate: how many removed entries, or rows, or columns, are updated as one group
            (entries: whole rows); None for 2,000 entries, and all rows and columns jointly.
        criterion: `surgeon`; `k-obd` takes diagonals of factors in place of inverses and updates
            nothing; `l-obd` also takes G = I. Both are the paper's baselines.
        scope: one threshold for the `model` (the paper's), or one sparsity for every `layer`.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    structure: str = "elements"
    shots: int = 5
    damping: float = 0.01
    max_correlate: int | None = None
    criterion: str = "surgeon"
    scope: str = "model"
    precision: str = "exact"

    paper: ClassVar[str | None] = "llm-surgeon"
    sparsity_of: ClassVar[str | None] = "the weights of all linears in the blocks"

    def __post_init__(self):
        check_options(self)

    @property
    def target(self) -> Pattern:
        """The pattern of the zeros after the last shot."""
        return make_pattern(self.sparsity, self.pattern, self.scope)

    def describe(self) -> str:
        """What a report calls the pattern."""
        if self.structure == "elements":
            return str(self.target)
        return f"{self.target}, rows and columns"

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
        moments: Moments | None = None,
    ) -> None:
        """Prune all linears of the decoder blocks in place.

        Args:
            model: as for `Method.prune`, like `progress` and `device`; the whole model computes at
                once.
            text: int64 `[n, length]`, length at least 2.
            moments: what `backpropagate(model, text, SecondMoment)` returned for the model as it
                is, so that many settings can share the first shot's pass; None to take it here.
        """
        if moments is not None:
            # A copy: the study takes out what it has used, so that its memory is freed.
            moments = (moments[0], dict(moments[1]))
        with on_device(model, device):
            for shot in range(1, self.shots + 1):
                # (1) second moments of inputs and gradients, of the weights as they are now
                if shot > 1 or moments is None:
                    label = None
                    if progress is not None:
                        label = f"{progress} {shot}/{self.shots}"
                    moments = backpropagate(
                        model, text, SecondMoment, precision=self.precision, progress=label
                    )
                # (2) inverse factors and costs
                with matmul_precision(model.device, "exact"):
                    layers = study_model(
                        model,
                        *moments,
                        structure=self.structure,
                        criterion=self.criterion,
                        damping=self.damping,
                    )
                # The factors of the old weights are freed before the next pass.
                moments = None
                # (3) one threshold for the target up to this shot; what is below it goes, and
                # (4) the rest makes up for it
                goal = (self.target, shot / self.shots, self.scope)
                costs = [layer.costs for layer in layers]
                for layer, parts in zip(layers, cheapest_parts(costs, *goal), strict=True):
                    layer.remove(parts, self.max_correlate)

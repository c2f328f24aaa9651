"""K-prune: sublayer by sublayer, cut the heads and neurons that know least a FLOP, and refit.

Park et al., Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models (ICLR
2024, arXiv 2308.03449; equations as numbered in its first version); official code
snudm-starlab/K-prune at 9ca629a. The paper is about encoders of BERT's type; what is said of
decoders here is ours.

Differences from the official code:

- The divergence is KL(student || teacher), as printed.
- Derivatives are squared for each window, see `knowledge`.
- Whole heads are scored, cross terms between their channels included.
- The first threshold that fits is taken, which may be to remove nothing.
- A sublayer without units keeps its output bias.
- Least squares is damped, where theirs falls back to the old weights.

Beside that code on a random BERT, both kinds of knowledge of neurons and of the channels of heads
differ by less than 4e-7 of the largest, given its direction and windows one by one; masks from the
same scores are equal, and refits without damping differ by 2e-12 in float64. The printed direction
moves predictive knowledge of neurons by up to 27 %, whole heads that of heads by up to 80 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...models.loading import on_device
from ...models.surgery import sync_config
from ..base import Method
from .knowledge import knowledge
from .options import check_options
from .predictions import predictions
from .refit import check_length, output_matrix, refit
from .refit_examples import check_sums, examples
from .search import flops_budget, flops_of_units, scores_per_flop, survivors
from .sublayer_steps import blocks_to_cut, cut_sublayer


@dataclass(frozen=True)
class KPrune(Method):
    """Heads and neurons removed, and the output matrices of what is left refitted.

    With grouped queries, a key-value head goes with the query heads that read it.

    Args:
        sparsity: fraction of the FLOPs of all heads and neurons that goes, at the length of the
            calibration windows.
        predictive: weight of predictive knowledge.
        representational: weight lambda of representational knowledge, above 0, since hidden states
            alone rank the first sublayer.
        head_weight: weight mu of heads beside neurons; 1, since whole heads are scored here (the
            official 64 undoes its mean over a head's channels).
        temperature: gamma, which divides logits.
        tune: refit the output matrix of each sublayer.
        damping: damping of the refit, as a fraction of the mean diagonal of the inputs' Gram
            matrix; more for little text.
        refresh: measure anew at every sublayer. Without, once on the whole model, where nothing
            has changed yet and hidden states alone decide.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    predictive: float = 1.0
    representational: float = 2.5e-4
    head_weight: float = 1.0
    temperature: float = 2.0
    tune: bool = True
    damping: float = 1e-6
    refresh: bool = True
    precision: str = "exact"

    paper: ClassVar[str | None] = "k-prune"
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the FLOPs of all heads and neurons"

    def __post_init__(self):
        check_options(self)

    def describe(self) -> str:
        """What a report calls the pattern."""
        return f"heads and neurons, {self.sparsity} of their FLOPs"

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Cut and refit in place, from the bottom.

        The teacher, a copy of the model, is held meanwhile, with its logits of all windows.

        Args:
            model: as for `Method.prune`, like `progress` and `device`; the whole model computes at
                once.
            text: int64 `[n, length]` without padding.

        Raises:
            UserError: a sparsity that cannot be met, a model without predictions or without
                separate heads and neurons, or with norms on what sublayers add; fewer tokens than
                units to refit, too little damping, bad tokens, activations that are not finite.
        """
        flops = flops_of_units(model, text.shape[1])
        budget = flops_budget(model, self.sparsity, flops)
        if self.tune:
            check_length(model, text)
        with on_device(model, device):
            teacher_predictions = None
            if self.refresh and self.predictive:
                teacher_predictions = predictions(model, text, self.precision)
            passes = {"precision": self.precision, "progress": progress}
            for step, teacher_step in blocks_to_cut(model, text, with_teacher=self.tune, **passes):
                if self.tune and step.index == 0:
                    check_sums(step)  # before anything is cut
                for of_mlp in (False, True):
                    target = 2 * step.index + of_mlp
                    # (a) knowledge of the target and of all sublayers above it
                    if self.refresh or target == 0:
                        scores = self._scores(model, text, teacher_predictions, target, flops)
                        first_scored = target
                    # (b) the mask search, of which only the target's part is carried out
                    kept = survivors(scores[target - first_scored :], flops[target:], budget)
                    budget -= flops[target] * len(kept)
                    cut_sublayer(step, kept, of_mlp)
                    # (c) the weight tuning of what is left
                    if self.tune and kept:
                        pairs = examples(step, teacher_step, of_mlp)
                        refit(output_matrix(step, of_mlp), pairs, self.damping)
            sync_config(model)

    def _scores(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        teacher_predictions: Sequence[torch.Tensor] | None,
        target: int,
        flops: Sequence[int],
    ) -> list[torch.Tensor]:
        """Knowledge a FLOP of the units of all sublayers from number `target` on."""
        # The student still is the teacher at the first sublayer.
        if target == 0:
            teacher_predictions = None
        passes = {"temperature": self.temperature, "precision": self.precision}
        known = knowledge(model, text, teacher_predictions, first=target, **passes)
        weights = (self.predictive, self.representational, self.head_weight)
        return scores_per_flop(model, known, target, flops, *weights)

"""BESA: Wanda's order of the weights, and rates learned on the output of the block.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (ICLR 2024, arXiv 2402.16880), section 3 and algorithm 1; official code
OpenGVLab/LLMPrune-BESA at 4158d77.

As in the official code there are a sigmoid before the softmax, masks by count, errors relative to
each channel's norm, a deviation relative to the target, Prodigy, and one sequence a step.
Differences from it:

- The reference is the dense model's output (algorithm 1); `reference="pruned"` is that of the
  row-wise scripts.
- After training the counts are repaired, so that the model loses floor(weights * sparsity) exactly;
  `exact_count=False` leaves what the penalty achieved, rounded down in each row.
- Joint quantisation (section 3.3, not in the code either) and the column-wise order are left out.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from prodigyopt import Prodigy
from transformers import PreTrainedModel

from ...criteria.wanda import wanda_score
from ...errors import UserError
from ...models.anatomy import weight_of
from ...passes.precision import PRECISIONS
from ...passes.sequential import BlockStep, walk
from ...passes.statistics import InputNorm
from ...sparsity.patterns import Unstructured, count_removed
from ...validation import check_choices, check_flag, check_number, check_whole
from ..base import Method
from .learned_sparsity import LearnedRates, block_loss, candidate_rates, reachable

# Prodigy's `d_coef` as published for LLaMA-7B by row and for LLaMA-13B by layer. By layer the
# published values go from 0.05 to 50; 50 overshoots here.
_D_COEF = {"row": 5.0, "layer": 0.5}
# Without the sigmoid, whose slope of 1/4 and less no longer damps the steps, `d_coef` is multiplied
# by this number of ours.
_WITHOUT_SIGMOID = 0.1
_CHOICES = {
    "granularity": ("row", "layer"),
    "reference": ("dense", "pruned"),
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class BESA(Method):
    """Blockwise learned sparsity allocation; the remaining weights keep their values.

    Args:
        sparsity: s, fraction of the weights removed from every block, in (0, 1).
        granularity: a learned rate for each `row` or one for each `layer` (linear).
        penalty: lambda, the weight of a block's squared relative deviation from `sparsity`.
        epochs: passes over the calibration sequences, one optimiser step a sequence.
        reference: the outputs to match: those of the `dense` model, or those of the dense block on
            the outputs of the `pruned` blocks before it.
        sigmoid: a sigmoid before the softmax. It holds every rate between 0.376 and 0.624; for a
            sparsity outside, use False.
        exact_count: meet the global count exactly; False leaves what was learned.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option, or a sparsity that no learned rate can reach.
    """

    sparsity: float | None = None
    granularity: str = "row"
    penalty: float = 5.0
    epochs: int = 1
    reference: str = "dense"
    sigmoid: bool = True
    exact_count: bool = True
    precision: str = "exact"

    paper: ClassVar[str | None] = "besa"
    sparsity_of: ClassVar[str | None] = "the weights of each block"

    def __post_init__(self):
        check_choices(self, "besa", _CHOICES)
        for name in ("sigmoid", "exact_count"):
            check_flag(name, getattr(self, name))
        check_number("penalty", self.penalty, "a number >= 0, e.g. 5")
        check_whole("epochs", self.epochs, 1)
        if self.target.sparsity == 0:
            raise UserError(
                "sparsity 0 is not allowed for besa, which divides by it; use a number in (0, 1)"
            )
        low, high = reachable(candidate_rates())
        if self.sigmoid and not low < self.sparsity < high:
            raise UserError(
                f"sparsity {self.sparsity} is out of reach: with the sigmoid every rate lies "
                f"between {low:.3f} and {high:.3f}; use sigmoid=False"
            )

    @property
    def target(self) -> Unstructured:
        """The pattern of the whole model, which every block meets to one weight."""
        return Unstructured(self.sparsity, "model")

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Learn the rates of one block after the other and prune it in place (algorithm 1).

        Args:
            model: as for `Method.prune`, like `text`, `progress` and `device`.

        Raises:
            UserError: bad tokens, or activations that are not finite.
        """
        reference = None
        weights_so_far = 0
        removed_so_far = 0
        for block in walk(model, text, precision=self.precision, progress=progress, device=device):
            # Input norms of the dense block on pruned inputs, and the outputs to match.
            statistics, reference = self._measure(block, reference)
            weights = {name: weight_of(block.linears[name]) for name in statistics}
            # Importance |W_ij| * ||X_j||_2, as Wanda's; its order within rows is frozen.
            scores = {}
            for name, weight in weights.items():
                scores[name] = wanda_score(weight, statistics[name].norm()).dense()
            learned = LearnedRates(scores, weights, self.granularity, self.sigmoid)
            self.learn(block, learned, reference)
            # The blocks up to this one lose floor(weights * sparsity) together.
            weights_so_far += learned.size
            removed = count_removed(weights_so_far, self.sparsity) - removed_so_far
            removed_so_far += removed
            # W <- W * M, with the counts repaired unless the soft ones are asked for.
            if self.exact_count:
                learned.apply(learned.counts(removed))
            else:
                learned.apply(learned.counts())

    def _measure(
        self, block: BlockStep, reference: torch.Tensor | None
    ) -> tuple[dict[str, InputNorm], torch.Tensor]:
        """The input norms of the linears of a block that is still dense, and its reference.

        Args:
            block: the block at which the walk stands.
            reference: the outputs of the dense blocks before it, changed in place; None for the
                first block.
        """
        if reference is not None and self.reference == "dense":
            statistics = block.collect(InputNorm)
            # The dense model's own stream, one block further.
            for batch in reference.split(block.batch_size):
                batch.copy_(block.run(batch))
            return statistics, reference
        # The first block sees the same inputs either way: one pass gives norms and outputs.
        if reference is None:
            reference = torch.empty_like(block.hidden)
        return block.collect(InputNorm, outputs=reference), reference

    @torch.enable_grad()
    def learn(self, block: BlockStep, learned: LearnedRates, reference: torch.Tensor) -> None:
        """Train theta on the output of the block, one step for each sequence.

        Args:
            block: the block, with the inputs of all sequences.
            learned: the rates, whose `theta` is trained in place.
            reference: the outputs to match, `[n, length, width]`.

        Raises:
            UserError: the loss is not finite.
        """
        d_coef = _D_COEF[self.granularity]
        if not self.sigmoid:
            d_coef *= _WITHOUT_SIGMOID
        optimiser = Prodigy([learned.theta], d_coef=d_coef)
        for _ in range(self.epochs):
            for inputs, output in zip(block.hidden.split(1), reference.split(1), strict=True):
                loss = self._loss(block, learned, inputs, output.to(block.device))
                (learned.theta.grad,) = torch.autograd.grad(loss, learned.theta)
                optimiser.step()
        if not learned.theta.isfinite().all():
            raise UserError(
                f"outputs of block {block.index} hold NaN or infinity; use a wider dtype such as "
                "float32"
            )

    def _loss(
        self,
        block: BlockStep,
        learned: LearnedRates,
        inputs: torch.Tensor,
        reference: torch.Tensor,
    ) -> torch.Tensor:
        """The block loss of one sequence and `lambda ((alpha - s) / s)^2`.

        A function of its own, so that masked weights are freed before the next are made.

        Args:
            block: the block.
            learned: the rates.
            inputs: `[1, length, width]`.
            reference: the outputs to match, `[1, length, width]`.
        """
        weights, rate = learned.masked()
        deviation = (rate - self.sparsity) / self.sparsity
        return block_loss(block.run(inputs, weights), reference) + self.penalty * deviation**2

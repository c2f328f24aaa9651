"""BESA: Wanda's order of the weights, and rates for each row or matrix learned on the output of the
block.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (ICLR 2024, arXiv 2402.16880), section 3 and algorithm 1; official code
OpenGVLab/LLMPrune-BESA at 4158d77.

As in the official code: sigmoid before the softmax, mask by count, errors relative to each
channel's norm, deviation from the target relative to it, Prodigy, one sequence a step. Differences
from it: the reference is the dense model's output (algorithm 1; `reference="pruned"` is the
row-wise scripts'), and the counts are repaired after training so that the model loses floor(weights
* sparsity) exactly (`exact=False` leaves what the penalty achieved, rounded down in each row).
  Joint quantisation (section 3.3, in neither code) and the column-wise order are left out.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from prodigyopt import Prodigy

from ...criteria.wanda import wanda_score
from ...errors import UserError
from ...models.anatomy import weight_of
from ...passes.precision import PRECISIONS
from ...passes.sequential import BlockStep, walk
from ...passes.statistics import InputNorm
from ...sparsity.patterns import Unstructured, count_removed
from ...validation import check_choices, check_flag, check_number, check_whole
from .learned_sparsity import LearnedRates, block_loss, candidate_rates, reachable

# Prodigy's, as published for LLaMA-7B by row and LLaMA-13B by layer (by layer from 0.05 to 50; 50
# overshoots here).
_D_COEF = {"row": 5.0, "layer": 0.5}
_WITHOUT_SIGMOID = 0.1  # of that, ours: its slope of 1/4 and less no longer damps the steps
_CHOICES = {
    "granularity": ("row", "layer"),
    "reference": ("dense", "pruned"),
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class BESA:
    """Blockwise learned sparsity allocation; survivors keep their values.

    Args:
        sparsity: fraction of the weights removed from every block, in (0, 1).
        granularity: a learned rate for each `row` or one for each `layer` (linear).
        penalty: lambda, the weight of a block's squared relative deviation from `sparsity`.
        epochs: passes over the calibration sequences, one optimiser step a sequence.
        reference: the outputs to match: of the `dense` model, or of the dense block on the `pruned`
            blocks' outputs.
        smooth: a sigmoid before the softmax. It holds every rate between 0.376 and 0.624; for a
            sparsity outside, use False.
        exact: meet the global count exactly; False leaves what was learned.
        precision: of forward and backward passes, `exact` (the model's dtype) or `fast` (bfloat16
            products).

    Raises:
        UserError: an impossible option, or a sparsity that no learned rate can reach.
    """

    sparsity: float | None = None
    granularity: str = "row"
    penalty: float = 5.0
    epochs: int = 1
    reference: str = "dense"
    smooth: bool = True
    exact: bool = True
    precision: str = "exact"

    paper: ClassVar[str] = "besa"
    needs_calibration: ClassVar[bool] = True
    facets: ClassVar[dict] = {"type": ["Unstructured"], "criteria": ["Wanda"], "weight": ["Frozen"]}

    def __post_init__(self):
        check_choices(self, "besa", _CHOICES)
        for name in ("smooth", "exact"):
            check_flag(name, getattr(self, name))
        check_number("penalty", self.penalty, "a number >= 0, as 5")
        check_whole("epochs", self.epochs, 1)
        if self.target.sparsity == 0:
            raise UserError(
                "sparsity 0 is not allowed for besa, which divides by it; use a number in (0, 1)"
            )
        low, high = reachable(candidate_rates())
        if self.smooth and not low < self.sparsity < high:
            raise UserError(
                f"sparsity {self.sparsity} is out of reach: with the sigmoid every rate lies "
                f"between {low:.3f} and {high:.3f}; use smooth=False"
            )

    @property
    def target(self) -> Unstructured:
        return Unstructured(self.sparsity, "model")

    @torch.no_grad()
    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Learn the rates of one block after the other and prune it in place (algorithm 1).

        Args:
            calibration: int64 `[n, length]`.
            progress: label of a progress bar, None for none.
            device: where blocks compute, one at a time; None for where the model is.

        Raises:
            UserError: bad tokens, or activations that are not finite.
        """
        reference = None
        seen = 0
        removed = 0
        for block in walk(
            model, calibration, precision=self.precision, progress=progress, device=device
        ):
            # the first block sees the same inputs either way
            if reference is None or self.reference == "pruned":
                reference = torch.empty_like(block.hidden) if reference is None else reference
                statistics = block.collect(InputNorm, outputs=reference)
            else:
                statistics = block.collect(InputNorm)
                for batch in reference.split(block.batch_size):
                    batch.copy_(block.run(batch))
            weights = {name: weight_of(block.linears[name]) for name in statistics}
            scores = {
                name: wanda_score(weight, statistics[name].norm())
                for name, weight in weights.items()
            }
            learned = LearnedRates(scores, weights, self.granularity, self.smooth)
            self.learn(block, learned, reference)
            seen += learned.size
            budget = count_removed(seen, self.sparsity) - removed
            removed += budget
            learned.bake(learned.counts(budget if self.exact else None))

    @torch.enable_grad()
    def learn(self, block: BlockStep, learned: LearnedRates, reference: torch.Tensor) -> None:
        """Train `learned.theta` on the output of the block: one step for each sequence of
        `block.hidden`.

        Args:
            reference: the outputs to match, `[n, length, width]`.

        Raises:
            UserError: the loss is not finite.
        """
        d_coef = _D_COEF[self.granularity] * (1 if self.smooth else _WITHOUT_SIGMOID)
        optimiser = Prodigy([learned.theta], d_coef=d_coef)
        for _ in range(self.epochs):
            for inputs, wanted in zip(block.hidden.split(1), reference.split(1), strict=True):
                loss = self._loss(block, learned, inputs, wanted.to(block.device))
                (learned.theta.grad,) = torch.autograd.grad(loss, learned.theta)
                optimiser.step()
        if not learned.theta.isfinite().all():
            raise UserError(
                f"outputs of block {block.index} hold NaN or infinity; use a wider dtype such as "
                "float32"
            )

    def _loss(
        self, block: BlockStep, learned: LearnedRates, inputs: torch.Tensor, wanted: torch.Tensor
    ):
        """Of one sequence; a function, so that masked weights are freed before the next are
        made."""
        weights, rate = learned.masked()
        deviation = (rate - self.sparsity) / self.sparsity
        return block_loss(block.run(inputs, weights), wanted) + self.penalty * deviation**2

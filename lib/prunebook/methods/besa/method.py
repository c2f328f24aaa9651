"""BESA: Wanda's order of the weights, and rates learned on the output of the block.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (ICLR 2024, arXiv 2402.16880), section 3 and algorithm 1; official code
OpenGVLab/LLMPrune-BESA at 4158d77.

As in the official code there are a sigmoid before the softmax, masks by count, errors relative to
each channel's norm, a deviation relative to the target, Prodigy, and one sequence a step.
Differences from it:

- The reference is the dense model's output (algorithm 1); `reference="pruned"` is that of the
  row-wise scripts.
- Prodigy's factor `d_coef` is 5 by row and 0.5 by layer for every model; the published values
  differ from model to model. Without the sigmoid it is a tenth of that.
- After training the counts are repaired, so that the model loses floor(weights * sparsity) exactly;
  `exact_count=False` leaves what the penalty achieved, rounded down in each row.
- Joint quantisation (section 3.3, not in the code either) and the column-wise order are left out.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...criteria.wanda import wanda_score
from ...models.anatomy import weight_of
from ...passes.sequential import BlockStep, walk
from ...passes.statistics import InputNorm
from ...sparsity.patterns import Unstructured, count_removed
from ..base import Method
from .block_training import train_rates
from .learned_sparsity import LearnedRates
from .options import check_options


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
        check_options(self)

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
            # theta descends on the loss of the block: lambda holds the rates near s.
            train_rates(
                block,
                learned,
                reference,
                sparsity=self.sparsity,
                penalty=self.penalty,
                epochs=self.epochs,
            )
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

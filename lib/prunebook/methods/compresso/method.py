"""Compresso: masks and adapters trained together under one budget for the whole model.

Guo et al., Compresso: Structured Pruning with Collaborative Prompting Learns Compact Large Language
Models (arXiv 2310.05015); official code microsoft/Moonlit at 348a402, `Compresso/`. The paper's
collaborative prompt is a prefix of the text that the method is trained on; see `instruction_data`.

Differences from the official code:

- Heads are removed by whole key-value heads, with the query heads that read them.
- Masks act, and norms count channels, as `passes.masked` says, so that the cut model computes what
  the masked one did; there norms go on dividing by the full width, and nothing is cut.
- The masks of what stays are 1; there they are at most 0.996.
- All final masks follow from one order (`SizeBudget.choose`), not from the expected number in each
  block.
- The learning rate of the adapters falls on a cosine, not on a line.
- The log alpha of neurons starts at 4.605; there at 4.595.

Masks, expected size, constraint and gradients agree with the official code to 5e-6 without its
rounding to half precision, which moves gradients by up to 0.3 %.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...measure.baseline import check_head
from ...recovery.finetune import adapters, query_value_names
from ...recovery.learned_masks import LearnedMasks, MaskSearchResult, train_masks
from ...recovery.training_options import TrainingOptions
from ...sparsity.lagrangian import Lagrangian
from ...sparsity.structured_masks import check_shape, mask_shapes
from ..base import MaskTrainingMethod
from .options import RAMP, check_options
from .response_loss import checked_loss
from .size_budget import SizeBudget


@dataclass(frozen=True)
class Compresso(TrainingOptions, MaskTrainingMethod):
    """Adapters on queries and values, masks and two multipliers trained together, then the cut.

    Training is one pass over the data. Defaults are those of the official script, which sees 50,000
    instructions eight times; for fewer steps masks and multipliers need higher rates.

    Args:
        sparsity: fraction of all block parameters that is removed, met to half a neuron.
        learning_rate: learning rate of the adapters.
        mask_rate: learning rate of log alpha.
        multiplier_rate: learning rate of both multipliers.
        lora_only: share of the steps, at the start, in which adapters train without masks; at most
            0.5, as the target grows in half of the steps after them.
        rank: rank of the adapters.
        hidden: whether hidden channels are removed, too.
        batch_size: windows in a step.
        seed: seed of the adapters, of the masks' start and of their noise.
        precision: `exact` (passes in the weights' dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float = 0.3
    learning_rate: float = 5e-5
    mask_rate: float = 0.1
    multiplier_rate: float = 0.1
    lora_only: float = 0.125
    rank: int = 8
    hidden: bool = True
    batch_size: int = 1
    seed: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "compresso"
    sparsity_of: ClassVar[str | None] = "the parameters of all blocks"

    def __post_init__(self):
        self.check_training("compresso")
        check_options(self)

    def describe(self) -> str:
        """What a report calls the pattern."""
        kinds = "heads, neurons"
        if self.hidden:
            kinds += " and hidden channels"
        return f"{kinds}, {self.sparsity}"

    def learn(
        self, model: PreTrainedModel, data: torch.Tensor, progress: str | None = None
    ) -> MaskSearchResult:
        """Train masks and adapters, which are merged into the weights; nothing is cut yet.

        Args:
            model: a causal language model.
            data: int64 `[n, length]`, or `[n, length, 2]` with labels as in `instruction_data`.
            progress: label of a progress bar; None for no bar.

        Returns:
            The masks; the one constraint of their course is called `size`.

        Raises:
            UserError: a sparsity that whole heads and neurons cannot give, an architecture without
                them, bad tokens, and what `recovery.training.train` raises.
        """
        # Everything is checked before anything is trained.
        check_head(model)
        loss_of = checked_loss(model, data)
        budget = SizeBudget(model, self.sparsity)
        masks = self._masks(model)
        steps = len(data) // self.batch_size
        # One constraint for the model, lambda1 (s - t) + lambda2 (s - t)^2: s is the expected
        # sparsity under the masks, and the target t rises from 0 once the masks are on.
        constraint = Lagrangian({"size": self.sparsity}, round(RAMP * steps))
        training = self.training(steps)
        # Adapters and log alpha descend, lambda1 and lambda2 ascend; the weights are frozen. Masks
        # and multipliers keep their rates, as in the official script.
        targets = query_value_names(model)
        with adapters(model, training, targets=targets, rank=self.rank, dropout=0.0):
            course = train_masks(
                model,
                data,
                masks,
                constraint,
                lambda now: {"size": budget.removed(now.kept())[None]},
                training,
                mask_rate=self.mask_rate,
                multiplier_rate=self.multiplier_rate,
                constant=True,
                start=int(self.lora_only * steps),
                loss_of=loss_of,
                progress=progress,
            )
        # What has the lowest log alpha in the whole model goes, until the budget is met.
        log_alpha = masks.trained()
        return MaskSearchResult(budget.choose(log_alpha), log_alpha, course)

    def _masks(self, model: PreTrainedModel) -> LearnedMasks:
        """One mask for each head and each neuron of a block, and for each hidden channel."""
        # z^h [L, K] and z^m [L, m], and one z^d [d] for the whole residual stream
        shapes = mask_shapes(model)
        axes = ["heads", "neurons"]
        sizes = {}
        if self.hidden:
            axes.append("hidden")
            sizes["hidden"] = model.config.hidden_size
        check_shape(model, sizes)
        return LearnedMasks({axis: shapes[axis] for axis in axes}, self.seed)

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
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...data.windows import check_tokens
from ...errors import UserError
from ...measure.baseline import check_head
from ...models.anatomy import find_stack, sublayers
from ...passes.backward import next_token_loss
from ...passes.precision import PRECISIONS
from ...recovery.finetune import adapters
from ...recovery.learned_masks import LearnedMasks, MaskSearchResult, train_masks
from ...recovery.training import Loss, Training
from ...sparsity.lagrangian import Lagrangian
from ...sparsity.structured_masks import check_shape, mask_shapes
from ...validation import check_choices, check_flag, check_fraction, check_number, check_whole
from ..base import MaskTrainingMethod
from .instruction_data import check_instructions
from .response_loss import response_loss
from .size_budget import SizeBudget

RAMP = 0.5  # share of the steps in which the target grows: 4 of 8 epochs in the official script
_LORA_ONLY = f"a share of the steps from 0 to {1 - RAMP}"


@dataclass(frozen=True)
class Compresso(MaskTrainingMethod):
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
        check_choices(self, "compresso", {"precision": PRECISIONS})
        check_fraction("sparsity", self.sparsity)
        for name in ("rank", "batch_size"):
            check_whole(name, getattr(self, name), 1)
        check_whole("seed", self.seed, 0)
        for name in ("learning_rate", "mask_rate", "multiplier_rate"):
            check_number(name, getattr(self, name))
        check_number("lora_only", self.lora_only, _LORA_ONLY)
        if self.lora_only > 1 - RAMP:
            raise UserError(f"lora_only {self.lora_only} is not allowed; use {_LORA_ONLY}")
        check_flag("hidden", self.hidden)

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
        loss_of = _loss(model, data)
        budget = SizeBudget(model, self.sparsity)
        masks = self._masks(model)
        steps = len(data) // self.batch_size
        # One constraint for the model, lambda1 (s - t) + lambda2 (s - t)^2: s is the expected
        # sparsity under the masks, and the target t rises from 0 once the masks are on.
        constraint = Lagrangian({"size": self.sparsity}, round(RAMP * steps))
        training = self._training(steps)
        # Adapters and log alpha descend, lambda1 and lambda2 ascend; the weights are frozen. Masks
        # and multipliers keep their rates, as in the official script.
        targets = _query_value_names(model)
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

    def _training(self, steps: int) -> Training:
        """How adapters are trained in so many steps."""
        return Training(
            self.learning_rate,
            steps // 10,
            batch=self.batch_size,
            seed=self.seed,
            precision=self.precision,
            clip=1.0,
            weight_decay=0.0,
        )

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


def _loss(model: PreTrainedModel, data: torch.Tensor) -> Loss:
    """The loss for checked data: of the labelled tokens, or of every next token."""
    if isinstance(data, torch.Tensor) and data.ndim == 3:
        check_instructions(model, data)
        return response_loss
    check_tokens(model, data, "data")
    return next_token_loss


def _query_value_names(model: PreTrainedModel) -> list[str]:
    """The last part of the names of the query and the value projection."""
    first = find_stack(model)[1][0]
    parts = sublayers(first)
    return [
        name.rpartition(".")[2]
        for name, module in first.named_modules()
        if module in (parts.query, parts.value)
    ]

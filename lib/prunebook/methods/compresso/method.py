"""Compresso: learn which heads, neurons and hidden channels go, under one budget, while adapters
learn to do without.

Guo et al., Compresso: Structured Pruning with Collaborative Prompting Learns Compact Large Language
Models (arXiv 2310.05015); official code microsoft/Moonlit at 348a402, `Compresso/`. The
collaborative prompt is a matter of the text to learn from, see `instructions`.

Differences from the code: heads go by whole key-value heads. Masks act, and norms count channels,
as in `structured_masks`, so that what is cut out computes what was masked; there norms go on
dividing by the full width and nothing is cut. The masks that stay are 1, and all of them follow
from one order (`SizeBudget.choose`) rather than from the expected number in each block. The rate of
the adapters falls on a cosine, not on a line.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...data.windows import check_tokens
from ...errors import UserError
from ...measure.baseline import check_head
from ...models.anatomy import find_stack, sublayers
from ...models.loading import on_device
from ...passes.backward import next_token_loss
from ...passes.precision import PRECISIONS
from ...recovery.finetune import adapters
from ...recovery.learned_masks import LearnedMasks, MaskTrainingLog, train_masks
from ...recovery.training import Training
from ...sparsity.lagrangian import Lagrangian
from ...sparsity.structured_masks import check_shape, cut, mask_shapes
from ...validation import check_choices, check_flag, check_fraction, check_number, check_whole
from ..base import Method
from .instruction_data import check_instructions, response_loss
from .size_budget import SizeBudget


@dataclass(frozen=True)
class PromptSearchResult:
    """Binary masks by axis (see `structured_masks`), the `log_alpha` that they come from, and the
    course of training, whose one constraint is `size`."""

    masks: dict[str, torch.Tensor]
    log_alpha: dict[str, torch.Tensor]
    course: MaskTrainingLog


@dataclass(frozen=True)
class Compresso(Method):
    """Adapters on queries and values, masks and two multipliers trained together; then what is
    masked is cut out.

    Args:
        sparsity: fraction of all block parameters that goes, met to half a neuron. Defaults are
            those of the official script, which sees 50,000 instructions eight times.
        steps: of the optimiser; None for one pass over the calibration windows, else they are
            repeated as needed.
        learning_rate: of the adapters.
        mask_rate: of log alpha.
        multiplier_rate: of both multipliers.
        alone: share of the steps in which adapters train alone.
        ramp: share, after it, in which the target grows.
        rank: of the adapters.
        hidden: whether hidden channels go, too.
        batch: windows a step.
        seed: of adapters, the masks' start and their noise.
        precision: of the passes, `exact` (the weights' dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float = 0.3
    steps: int | None = None
    learning_rate: float = 5e-5
    mask_rate: float = 0.1
    multiplier_rate: float = 0.1
    alone: float = 0.125
    ramp: float = 0.5
    rank: int = 8
    hidden: bool = True
    batch: int = 1
    seed: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "compresso"
    needs_calibration: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the parameters of all blocks"

    def __post_init__(self):
        check_choices(self, "compresso", {"precision": PRECISIONS})
        check_fraction("sparsity", self.sparsity)
        for name in (*(["steps"] if self.steps is not None else []), "rank", "batch"):
            check_whole(name, getattr(self, name), 1)
        check_whole("seed", self.seed, 0)
        for name in ("learning_rate", "mask_rate", "multiplier_rate", "alone", "ramp"):
            check_number(name, getattr(self, name))
        if self.alone + self.ramp > 1 or self.alone == 1:
            raise UserError(
                f"alone {self.alone} and ramp {self.ramp} are shares of the steps; use 1 or less "
                "together"
            )
        check_flag("hidden", self.hidden)

    def describe(self) -> str:
        """What the report calls the pattern."""
        return f"heads, neurons{' and hidden channels' if self.hidden else ''}, {self.sparsity}"

    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Learn and cut, in place.

        Args:
            calibration: the text to learn from, int64 `[n, length]`, or `[n, length, 2]` with
                labels, see `instructions`.
            progress: label of a progress bar, None for none.
            device: where the whole model computes; None for where it is.

        Raises:
            UserError: as `learn`.
        """
        with on_device(model, device):
            found = self.learn(model, calibration, progress)
            cut(model, found.masks)
        return found

    def learn(self, model, tokens: torch.Tensor, progress: str | None = None) -> PromptSearchResult:
        """Train masks and adapters, which are merged into the weights; nothing is cut yet.

        Raises:
            UserError: a sparsity that whole groups cannot give, an architecture without them, bad
                tokens, and what `finetune.train` raises.
        """
        check_head(model)
        labelled = getattr(tokens, "ndim", 2) == 3
        (check_instructions if labelled else check_tokens)(model, tokens)
        budget = SizeBudget(model, self.sparsity)
        shapes = mask_shapes(model)
        check_shape(model, {"hidden": model.config.hidden_size} if self.hidden else {})
        steps = self.steps or len(tokens) // self.batch
        windows = tokens[torch.arange(steps * self.batch) % len(tokens)]
        axes = ("heads", "neurons", "hidden") if self.hidden else ("heads", "neurons")
        masks = LearnedMasks({axis: shapes[axis] for axis in axes}, self.seed)
        constraint = Lagrangian({"size": self.sparsity}, round(self.ramp * steps))
        training = Training(
            self.learning_rate,
            steps // 10,
            batch=self.batch,
            seed=self.seed,
            precision=self.precision,
            clip=1.0,
            weight_decay=0.0,
        )
        first = find_stack(model)[1][0]
        parts = sublayers(first)
        targets = [
            name.rpartition(".")[2]
            for name, m in first.named_modules()
            if m in (parts.query, parts.value)
        ]
        with adapters(model, training, targets=targets, rank=self.rank, dropout=0.0):
            course = train_masks(
                model,
                windows,
                masks,
                constraint,
                lambda now: {"size": budget.removed(now.kept())[None]},
                training,
                mask_rate=self.mask_rate,
                multiplier_rate=self.multiplier_rate,
                constant=True,
                start=int(self.alone * steps),
                loss_of=response_loss if labelled else next_token_loss,
                progress=progress,
            )
        log_alpha = {axis: x.detach() for axis, x in masks.log_alpha.items()}
        return PromptSearchResult(budget.choose(log_alpha), log_alpha, course)

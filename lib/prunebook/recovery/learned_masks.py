"""Hard-concrete masks on a model, trained with its loss until constraints on its size hold.

Masks' `log_alpha`, and whatever of the model is trained, descend; the multipliers of the
constraints ascend. There is one constraint for each axis in Xia et al., Sheared LLaMA (ICLR 2024,
arXiv 2310.06694), section 2.1, and one for the whole model in Guo et al., Compresso (arXiv
2310.05015).
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..passes.backward import next_token_loss
from ..passes.masked import masked
from ..sparsity import hard_concrete
from ..sparsity.lagrangian import Lagrangian
from ..sparsity.structured_masks import check_masks, mask_shapes
from .training import Loss, Training, train


@dataclass(frozen=True)
class MaskTrainingLog:
    """The course of a training with masks, by step, from the first step with masks on.

    loss: loss under random masks in nats, `[steps]`.
    removed: constraint -> expected fraction that is removed, averaged over rows, `[steps]`.
    target: constraint -> target of that fraction, `[steps]`.
    multipliers: constraint -> lambda1 and lambda2, `[steps, 2]`.
    """

    loss: torch.Tensor
    removed: dict[str, torch.Tensor]
    target: dict[str, torch.Tensor]
    multipliers: dict[str, torch.Tensor]


@dataclass(frozen=True)
class MaskSearchResult:
    """The masks that a method has learned, and the course of their training.

    masks: axis -> bool mask, as in `structured_masks`, True for what stays.
    log_alpha: axis -> the trained `log_alpha` that the mask was chosen by, in the mask's shape.
    course: the training, step by step.
    """

    masks: dict[str, torch.Tensor]
    log_alpha: dict[str, torch.Tensor]
    course: MaskTrainingLog


class LearnedMasks(nn.Module):
    """Hard-concrete masks of some axes.

    `log_alpha` starts near 5, above the clamp of log(100) = 4.6.

    Args:
        shapes: axis -> shape of its mask.
        seed: seed of the small differences at the start.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        log_alpha = {}
        for axis, shape in shapes.items():
            log_alpha[axis] = nn.Parameter(5 + 0.01 * torch.randn(shape, generator=generator))
        # Made of a dict, it sorts the axes, and in this order masks draw their noise.
        self.log_alpha = nn.ParameterDict(log_alpha)

    @torch.no_grad()
    def limit(self) -> None:
        """Clamp every `log_alpha`, in place; past the limits no gradient would bring it back."""
        for log_alpha in self.log_alpha.values():
            log_alpha.clamp_(-hard_concrete.LIMIT, hard_concrete.LIMIT)

    def sample(self) -> dict[str, torch.Tensor]:
        """Random masks by axis, drawn with torch's own random state."""
        return {axis: hard_concrete.sample(log_alpha) for axis, log_alpha in self.log_alpha.items()}

    def kept(self) -> dict[str, torch.Tensor]:
        """Probability that an entry is not 0, by axis, in the mask's shape."""
        return {
            axis: 1 - hard_concrete.probability_of_zero(x) for axis, x in self.log_alpha.items()
        }

    def removed(self) -> dict[str, torch.Tensor]:
        """Expected fraction of each row that is 0, by axis: `[1]` or `[L]`."""
        return {
            axis: hard_concrete.probability_of_zero(x).mean(-1).reshape(-1)
            for axis, x in self.log_alpha.items()
        }

    def trained(self) -> dict[str, torch.Tensor]:
        """`log_alpha` by axis, without gradients."""
        return {axis: x.detach() for axis, x in self.log_alpha.items()}

    def keep(self, counts: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """Bool masks that keep exactly so many of each row, by axis."""
        return {axis: hard_concrete.keep(x, counts[axis]) for axis, x in self.trained().items()}


def learn_masks(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    sizes: Mapping[str, int],
    full: Mapping[str, int],
    training: Training,
    *,
    ramp: int,
    mask_rate: float,
    multiplier_rate: float,
    progress: str | None = None,
) -> MaskSearchResult:
    """Train masks together with the parameters that require gradients, in place; nothing is cut.

    Args:
        model: a causal language model.
        tokens: int64 `[n, length]`, in the order of training.
        sizes: axis -> size that shall stay.
        full: axis -> size of the model as it is.
        training: see `Training`; its learning rate is that of the model's parameters.
        ramp: steps in which the targets grow.
        mask_rate: learning rate of `log_alpha`.
        multiplier_rate: learning rate of the multipliers.
        progress: label of a progress bar, None for none.

    Raises:
        UserError: what `train` and `structured_masks.check_masks` raise.
    """
    shapes = mask_shapes(model)
    masks = LearnedMasks({axis: shapes[axis] for axis in sizes}, training.seed)
    constraint = Lagrangian({axis: 1 - size / full[axis] for axis, size in sizes.items()}, ramp)
    rates = {"mask_rate": mask_rate, "multiplier_rate": multiplier_rate}
    removed = LearnedMasks.removed
    course = train_masks(
        model, tokens, masks, constraint, removed, training, **rates, progress=progress
    )
    # A mask may have several entries for each unit of its axis.
    counts = {axis: size * shapes[axis][-1] // full[axis] for axis, size in sizes.items()}
    return MaskSearchResult(masks.keep(counts), masks.trained(), course)


def train_masks(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    masks: LearnedMasks,
    constraint: Lagrangian,
    removed: Callable[[LearnedMasks], Mapping[str, torch.Tensor]],
    training: Training,
    *,
    mask_rate: float,
    multiplier_rate: float,
    constant: bool = False,
    start: int = 0,
    loss_of: Loss = next_token_loss,
    progress: str | None = None,
) -> MaskTrainingLog:
    """Train masks and a constraint with the parameters that require gradients, all in place.

    Arguments that are not listed are those of `learn_masks`.

    Args:
        masks: the masks.
        constraint: the multipliers, with the targets of what is removed.
        removed: masks -> expected fraction that is removed, by constraint, `[rows]`.
        constant: keep the rates of masks and multipliers, rather than let them fall with the
            model's.
        start: steps before masks are on; the constraint counts its own steps from then on.
        loss_of: loss of the model on a batch of `tokens`.

    Raises:
        UserError: what `train` and `structured_masks.check_masks` raise.
    """
    check_masks(model, masks.log_alpha)
    steps = len(tokens) // training.batch
    step = MaskTrainingStep(model, masks, constraint, removed, loss_of, steps, start)
    groups = [
        {"params": [*masks.parameters()], "lr": mask_rate, "maximize": False},
        {"params": [*constraint.parameters()], "lr": multiplier_rate, "maximize": True},
    ]
    groups = [group | {"constant": constant} for group in groups]
    of_run = (constraint.targets, constraint.ramp, mask_rate, multiplier_rate, constant, start)
    settings = {"settings": repr(of_run), "groups": groups}
    train(step.to(model.device), tokens, training, operator.call, progress, **settings)
    masks.limit()
    return step.log()


class MaskTrainingStep(nn.Module):
    """Model, masks and constraint; called on a batch, it returns their loss.

    The loss is to descend in the model and the masks and to ascend in the constraint.

    step: buffer, number of calls, counted from -`start`.
    course: buffer `[steps - start, 1 + 4 * constraints]`, a row for each step from 0 on: the loss
        and, for every constraint, the expected fraction removed, its target and both multipliers.
        As they are buffers, a checkpoint has them.

    Args:
        model: as for `train_masks`, and so are the others.
        masks: the masks.
        constraint: the multipliers.
        removed: masks -> expected fraction that is removed.
        loss_of: loss of the model on a batch.
        steps: number of all steps.
        start: steps before masks are on.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        masks: LearnedMasks,
        constraint: Lagrangian,
        removed: Callable[[LearnedMasks], Mapping[str, torch.Tensor]],
        loss_of: Loss,
        steps: int,
        start: int,
    ):
        super().__init__()
        self.model = model
        self.masks = masks
        self.constraint = constraint
        self._removed = removed
        self._loss_of = loss_of
        self.register_buffer("step", torch.tensor(-start))
        columns = 1 + 4 * len(constraint.multipliers)
        self.register_buffer("course", torch.zeros(steps - start, columns))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Loss of `batch [windows, length]`, with the terms of the constraint."""
        step = int(self.step)
        self.step += 1
        if step < 0:
            return self._loss_of(self.model, batch)
        self.masks.limit()
        removed = self._removed(self.masks)
        with masked(self.model, self.masks.sample()):
            loss = self._loss_of(self.model, batch)
        row = [loss.detach()]
        for kind, multipliers in self.constraint.multipliers.items():
            target = torch.tensor(self.constraint.target(kind, step))
            row += [removed[kind].detach().mean(), target, *multipliers.detach()]
        self.course[step] = torch.stack([value.to(self.course) for value in row])
        return loss + self.constraint(removed, step)

    def log(self) -> MaskTrainingLog:
        """The course so far, on the CPU."""
        loss, *columns = self.course.cpu().unbind(1)
        log = MaskTrainingLog(loss, {}, {}, {})
        for index, kind in enumerate(self.constraint.multipliers):
            removed, target, *multipliers = columns[4 * index : 4 * index + 4]
            log.removed[kind] = removed
            log.target[kind] = target
            log.multipliers[kind] = torch.stack(multipliers, 1)
        return log

"""Hard-concrete masks on a model, trained with its loss until constraints on its size hold.

Descent in the masks' `log_alpha` and in whatever of the model is trained, ascent in the multipliers
of the constraints: one for each axis in Xia et al., Sheared LLaMA (ICLR 2024, arXiv 2310.06694),
section 2.1, one for the whole model in Guo et al., Compresso (arXiv 2310.05015).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..passes.backward import next_token_loss
from ..sparsity import hard_concrete
from ..sparsity.lagrangian import Lagrangian
from ..sparsity.structured_masks import check_masks, mask_shapes, masked
from .training import Training, train


@dataclass(frozen=True)
class MaskTrainingLog:
    """The course of training by step, from the first with masks on: `loss [steps]` under random
    masks, in nats; by constraint the fraction `removed [steps]` in expectation, averaged over rows,
    its `target [steps]` then, and `multipliers [steps, 2]`, lambda1 and lambda2."""

    loss: torch.Tensor
    removed: dict[str, torch.Tensor]
    target: dict[str, torch.Tensor]
    multipliers: dict[str, torch.Tensor]


@dataclass(frozen=True)
class MaskSearchResult:
    """What was learned, with its course by step.

    `masks` are bool, by axis, as in `structured_masks`. `loss [steps]` is that of the next token
    under random masks, in nats. By axis: `left [steps]` is the expected size, averaged over blocks,
    in the units of the sizes asked for; `wanted [steps]` is the target then; `multipliers [steps,
    2]` are lambda1 and lambda2.
    """

    masks: dict[str, torch.Tensor]
    loss: torch.Tensor
    left: dict[str, torch.Tensor]
    wanted: dict[str, torch.Tensor]
    multipliers: dict[str, torch.Tensor]


def learn_masks(
    model,
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
    """Train masks together with the parameters of the model that require gradients, in place;
    nothing is cut.

    Args:
        tokens: int64 `[n, length]`, in the order of training.
        sizes: what shall stay, by axis;
        full: what there is.
        training: see `finetune.Training`; its learning rate is of the model's parameters.
        ramp: steps in which the targets grow.
        mask_rate: learning rate of `log_alpha`.
        multiplier_rate: of the multipliers.
        progress: label of a progress bar, None for none.

    Raises:
        UserError: what `finetune.train` and `structured_masks.check_masks` raise.
    """
    shapes = mask_shapes(model)
    masks = LearnedMasks({axis: shapes[axis] for axis in sizes}, training.seed)
    constraint = Lagrangian({axis: 1 - size / full[axis] for axis, size in sizes.items()}, ramp)
    course = train_masks(
        model,
        tokens,
        masks,
        constraint,
        LearnedMasks.removed,
        training,
        mask_rate=mask_rate,
        multiplier_rate=multiplier_rate,
        progress=progress,
    )
    # of entries in a row
    counts = {axis: size * shapes[axis][-1] // full[axis] for axis, size in sizes.items()}
    return MaskSearchResult(
        masks.keep(counts),
        course.loss,
        {axis: full[axis] * (1 - removed) for axis, removed in course.removed.items()},
        {axis: full[axis] * (1 - target) for axis, target in course.target.items()},
        course.multipliers,
    )


def train_masks(
    model,
    tokens: torch.Tensor,
    masks: "LearnedMasks",
    constraint: Lagrangian,
    removed: Callable[["LearnedMasks"], Mapping[str, torch.Tensor]],
    training: Training,
    *,
    mask_rate: float,
    multiplier_rate: float,
    constant: bool = False,
    start: int = 0,
    loss_of: Callable[[nn.Module, torch.Tensor], torch.Tensor] = next_token_loss,
    progress: str | None = None,
) -> MaskTrainingLog:
    """Train `masks` and `constraint`, in place, together with the parameters of the model that
    require gradients.

    Args:
        removed: masks -> expected fraction that is removed, by constraint, `[rows]`.
        constant: whether the rates of masks and constraint stay, rather than fall with that of the
            rest.
        start: steps before masks are there; the constraint counts its own from then on.
        loss_of: of the model on a batch of `tokens`. The rest: as for `learn_masks`.

    Raises:
        UserError: what `finetune.train` and `structured_masks.check_masks` raise.
    """
    check_masks(model, masks.log_alpha)
    kinds = list(constraint.multipliers)
    shearing = _MaskTrainingStep(
        model, masks, constraint, removed, loss_of, len(tokens) // training.batch, start
    )
    groups = [
        {"params": [*masks.parameters()], "lr": mask_rate, "constant": constant},
        {
            "params": [*constraint.parameters()],
            "lr": multiplier_rate,
            "maximize": True,
            "constant": constant,
        },
    ]
    settings = repr(
        (constraint.targets, constraint.ramp, mask_rate, multiplier_rate, constant, start)
    )
    train(
        shearing.to(model.device),
        tokens,
        training,
        lambda step, batch: step(batch),
        progress,
        settings=settings,
        groups=groups,
    )
    masks.limit()
    loss, *rows = shearing.course.cpu().unbind(1)
    of_kind = {kind: rows[4 * i : 4 * i + 4] for i, kind in enumerate(kinds)}
    return MaskTrainingLog(
        loss,
        {kind: removed for kind, (removed, *_) in of_kind.items()},
        {kind: target for kind, (_, target, *_) in of_kind.items()},
        {kind: torch.stack(multipliers, 1) for kind, (_, _, *multipliers) in of_kind.items()},
    )


class LearnedMasks(nn.Module):
    """Hard-concrete masks of some axes, from `log_alpha` near 5, which is beyond what they are kept
    within.

    Args:
        shapes: axis -> shape of its mask.
        seed: of the small differences at the start.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int):
        super().__init__()
        drawn = torch.Generator().manual_seed(seed)
        self.log_alpha = nn.ParameterDict(
            {
                axis: nn.Parameter(5 + 0.01 * torch.randn(shape, generator=drawn))
                for axis, shape in shapes.items()
            }
        )

    @torch.no_grad()
    def limit(self) -> None:
        """Bring every `log_alpha` back within its limits, in place: past them no gradient would
        bring it back."""
        for log_alpha in self.log_alpha.values():
            log_alpha.clamp_(-hard_concrete.LIMIT, hard_concrete.LIMIT)

    def sample(self) -> dict[str, torch.Tensor]:
        """Random masks by axis, from torch's own random state."""
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

    def keep(self, counts: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """Bool masks that keep exactly so many of each row, by axis."""
        return {
            axis: hard_concrete.keep(x.detach(), counts[axis]) for axis, x in self.log_alpha.items()
        }


class _MaskTrainingStep(nn.Module):
    """Model, masks and constraints; called on a batch, the loss to descend in the one and ascend in
    the last.

    `step` counts the calls from -`start`; a row of `course` is the loss of a step from 0 on and, of
    every constraint, the fraction removed in expectation, its target and both multipliers. Both are
    buffers, so that a checkpoint has them.
    """

    def __init__(
        self,
        model,
        masks: LearnedMasks,
        constraint: Lagrangian,
        removed,
        loss_of,
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
        self.register_buffer(
            "course", torch.zeros(steps - start, 1 + 4 * len(constraint.multipliers))
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
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

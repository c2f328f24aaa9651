"""The training loop: it trains whatever of a model requires gradients.

The loop goes through `accelerate`, so that more devices are a matter of its configuration.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from transformers import PreTrainedModel

from ..errors import UserError
from ..measure.memory import malloc_pool
from ..passes.backward import next_token_loss, restore_requires_grad
from ..passes.precision import matmul_precision
from .checkpoint import Checkpoint

Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]  # (model, batch) -> its loss


@dataclass(frozen=True)
class Training:
    """How `train` runs: one pass over the windows with AdamW.

    The learning rate rises on a line, the warm-up, and then falls to 0 on a cosine. With a
    `second_rate` it falls in two stages instead (FAQ of BitNet b1.58, microsoft/unilm): on a line
    from `learning_rate` to 0, and from half of the steps on, on the line from `second_rate` to 0,
    without weight decay.

    Args:
        learning_rate: the rate at its peak.
        warmup: steps of the warm-up.
        second_rate: the rate of the second stage; None for a cosine.
        weight_decay: decay of all that is trained.
        betas: decay of the optimiser's two moments.
        batch: windows that each device takes in a step.
        seed: seed of dropout and of new parameters.
        precision: how passes compute: `exact` (the weights' dtype; float32 at least where all are
            trained) or `fast` (bfloat16 products).
        clip: largest norm of all gradients of a step; None for no limit.
        gradient_checkpointing: compute activations again in the backward pass, which takes less
            memory and more time.
        checkpoint: file for what is trained, the optimiser and the step. A run that was broken off
            goes on from it with the same result; it is removed at the end.
        checkpoint_every: number of steps between two savings.
    """

    learning_rate: float = 3e-4
    warmup: int = 0
    second_rate: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    batch: int = 1
    seed: int = 0
    precision: str = "exact"
    clip: float | None = None
    gradient_checkpointing: bool = False
    checkpoint: str | Path | None = None
    checkpoint_every: int = 50


@malloc_pool()
def train(
    model: nn.Module,
    tokens: torch.Tensor,
    training: Training,
    loss_of: Loss = next_token_loss,
    progress: str | None = None,
    *,
    settings: str = "",
    groups: Sequence[Mapping] = (),
) -> list[float]:
    """Train whatever of the model requires gradients, in place.

    Args:
        model: what is trained.
        tokens: int64 `[n, length]` for `loss_of`, in the order of training; windows that do not
            fill a last step are left out.
        training: see `Training`.
        loss_of: `(model, batch) -> loss`.
        progress: label of a progress bar, None for none.
        settings: settings of `loss_of`, in words: a checkpoint of other settings is refused.
        groups: parameters of the model with settings of their own, as AdamW takes them, e.g.
            `{"params": [...], "lr": 0.1, "maximize": True}`. They share the schedule, unless they
            are `constant` (key of a truth value), and `clip` leaves them alone.

    Returns:
        The loss of each step of the whole run on this device.

    Raises:
        UserError: too few tokens, a bad `clip`, a loss that is not finite, or a checkpoint of
            another run.
    """
    run = _Run(model, tokens, training, loss_of, groups)
    return run.losses(run.checkpoint(settings), progress)


class _Run:
    """One run of `train`; arguments as there."""

    def __init__(
        self,
        model: nn.Module,
        tokens: torch.Tensor,
        training: Training,
        loss_of: Loss,
        groups: Sequence[Mapping],
    ):
        self.model = model
        self.tokens = tokens
        self.training = training
        self.loss_of = loss_of
        self.accelerator = Accelerator(device_placement=False)
        self.windows = training.batch * self.accelerator.num_processes  # of a step, on all devices
        self.steps = len(tokens) // self.windows
        self._check()
        self.optimiser = _optimiser(model, training, groups)
        self.schedule = _schedule(self.optimiser, training, self.steps)

    def _check(self) -> None:
        """Raise a `UserError` unless the tokens fill a step, and `clip` is a norm."""
        if not self.steps or self.tokens.shape[1] < 2:
            raise UserError(
                f"tokens {list(self.tokens.shape)} make no step of {self.windows} windows of 2 "
                "tokens or more; give more"
            )
        clip = self.training.clip
        if clip is not None and not clip > 0:
            raise UserError(f"clip {clip!r} is not allowed; use a norm above 0, e.g. 1.0, or None")

    def checkpoint(self, settings: str) -> Checkpoint:
        """Where the run keeps its state: what is trained, and the buffers of the model."""
        training = self.training
        tensors = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
        in_state = self.model.state_dict().keys()
        for name, buffer in self.model.named_buffers():
            if name in in_state:
                tensors[name] = buffer
        # What does not change the result is no part of what a run is known by.
        loop = dataclasses.replace(
            training, gradient_checkpointing=False, checkpoint=None, checkpoint_every=0
        )
        return Checkpoint(
            training.checkpoint,
            training.checkpoint_every,
            (loop, settings),
            self.tokens,
            tensors,
            {"optimiser": self.optimiser, "schedule": self.schedule},
        )

    def losses(self, checkpoint: Checkpoint, progress: str | None) -> list[float]:
        """Run all steps, from the checkpoint's state on; returns the loss of each."""
        losses = checkpoint.load()
        prepared = self.model
        if self.accelerator.num_processes > 1:
            prepared = self.accelerator.prepare(self.model)
        self.model.train()
        remaining = range(len(losses), self.steps)
        try:
            bar = tqdm(remaining, desc=progress, unit="step", disable=progress is None)
            for step in bar:
                losses.append(self._backward(prepared, step))
                self._update(step)
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
                if checkpoint.is_due(step + 1) and self.accelerator.is_main_process:
                    checkpoint.save(losses)
        finally:
            self.model.eval()
            self.optimiser.zero_grad()
        if self.accelerator.is_main_process:
            checkpoint.remove()
        return losses

    def _backward(self, prepared: nn.Module, step: int) -> float:
        """Forward and backward pass of this device's windows of a step; returns the loss."""
        # Dropout does not depend on where a run was broken off.
        torch.manual_seed(self.training.seed + step)
        device = next(self.model.parameters()).device
        first = step * self.windows + self.accelerator.process_index * self.training.batch
        batch = self.tokens[first : first + self.training.batch].to(device)
        with torch.enable_grad(), matmul_precision(device, self.training.precision):
            loss = self.loss_of(prepared, batch)
            self.accelerator.backward(loss)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss of step {step + 1} is {value}; use a smaller learning rate or float32"
            )
        return value

    def _update(self, step: int) -> None:
        """Step along the gradients, and drop them."""
        shared = self.optimiser.param_groups[0]
        if self.training.second_rate is not None and step >= self.steps // 2:
            shared["weight_decay"] = 0.0
        if self.training.clip is not None:
            self.accelerator.clip_grad_norm_(shared["params"], self.training.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()


def _optimiser(
    model: nn.Module, training: Training, groups: Sequence[Mapping]
) -> torch.optim.Optimizer:
    """AdamW. Its first group is all that requires gradients and is in none of the `groups`."""
    own_settings = set()
    for group in groups:
        own_settings.update(group["params"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shared = [parameter for parameter in trained if parameter not in own_settings]
    return torch.optim.AdamW(
        [{"params": shared}, *map(dict, groups)],
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,  # 8 times as fast on CPU
    )


def _schedule(optimiser: torch.optim.Optimizer, training: Training, steps: int) -> LambdaLR:
    """The learning rate of each of so many steps, as a factor of the group's own rate."""
    second_peak = 1.0
    if training.second_rate is not None:
        second_peak = training.second_rate / training.learning_rate

    def factor(step: int) -> float:
        peak = 1.0 if step < steps // 2 else second_peak
        if step < training.warmup:
            return peak * step / training.warmup
        if training.second_rate is not None:
            return peak * (1 - step / steps)
        progress = (step - training.warmup) / max(1, steps - training.warmup)
        return 0.5 * (1 + math.cos(math.pi * progress))

    def constant(_: int) -> float:
        return 1.0

    factors = [constant if group.get("constant") else factor for group in optimiser.param_groups]
    return LambdaLR(optimiser, factors)


@contextlib.contextmanager
def activation_checkpointing(model: PreTrainedModel, training: Training) -> Iterator[None]:
    """While open, blocks compute their activations again in the backward pass, if that is asked.

    Args:
        model: the model that is trained.
        training: says whether, and at which precision.
    """
    if not training.gradient_checkpointing:
        yield
        return

    def contexts():
        # The first is for the forward pass, which has its context already; the second for what is
        # computed again in the backward pass.
        return contextlib.nullcontext(), matmul_precision(model.device, training.precision)

    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()  # removes the hook that enabling put on the embedding


@contextlib.contextmanager
def training_all(model: PreTrainedModel, training: Training) -> Iterator[None]:
    """While open, all parameters of the model require gradients, in float32 or wider.

    A narrower dtype would round small steps away; afterwards parameters have the dtype they had.
    Activations are computed again as the training asks.

    Args:
        model: the model that is trained.
        training: see `Training`.
    """
    dtypes = {parameter: parameter.dtype for parameter in model.parameters()}
    with restore_requires_grad(model), activation_checkpointing(model, training):
        model.requires_grad_(True)
        try:
            for parameter, dtype in dtypes.items():
                parameter.grad = None  # an earlier gradient would be of another dtype
                parameter.data = parameter.data.to(torch.promote_types(dtype, torch.float32))
            yield
        finally:
            for parameter, dtype in dtypes.items():
                parameter.data = parameter.data.to(dtype)

"""Training on domains whose shares adapt: those whose loss is furthest above a reference get more.

Dynamic batch loading of Sheared LLaMA (ICLR 2024, arXiv 2310.06694, section 2.2;
princeton-nlp/LLM-Shearing at b87218b, `callbacks/dynamic_loading_callback.py`).

Differences from the paper and from the official code:

- `new_shares` has both updates: the paper's, and the code's without a maximum and with smoothing.
- The domain that is furthest behind its share is next, and none is drawn at random: with few steps,
  chance would hide what the shares do.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ...data.token_check import check_tokens
from ...errors import UserError
from ...measure.baseline import add_tensors
from ...measure.quality import measure_quality
from ...passes.backward import next_token_loss
from ...recovery.training import Training, train, training_all


def new_shares(
    shares: torch.Tensor,
    losses: torch.Tensor,
    references: torch.Tensor,
    *,
    clamp: bool = True,
    smoothing: float = 1e-4,
) -> torch.Tensor:
    """Shares w in proportion to `w exp(max(loss - reference, 0))`, then `(1 - c) w + c / k`.

    Args:
        shares: w of each domain, `[k]`, above 0, of sum 1.
        losses: losses in nats a token, `[k]`.
        references: losses that they are compared with, `[k]`.
        clamp: take the maximum, as in the paper; without it, as in the code, domains below their
            reference shrink.
        smoothing: c, as in the code; 0 for the paper's algorithm.

    Returns:
        float32 `[k]`, of sum 1.
    """
    # Delta: how far each domain is above its reference.
    excess = losses - references
    if clamp:
        excess = excess.clamp(min=0)
    # w exp(Delta) in proportion, which is the softmax of log w + Delta.
    weights = torch.softmax(shares.log() + excess, 0)
    # The smoothing leaves every domain a share of c / k at least.
    return (1 - smoothing) * weights + smoothing / len(weights)


@dataclass(frozen=True)
class MixtureCourse:
    """The course of a training on domains, which are measured at the start and at every update.

    loss: training loss in nats a token, `[steps]`.
    losses: held-out losses at the start and at each update, `[updates, domains]`.
    shares: shares that follow from them, `[updates, domains]`.
    drawn: which domain the windows of each step were of, `[steps, batch]`.
    """

    loss: torch.Tensor
    losses: torch.Tensor
    shares: torch.Tensor
    drawn: torch.Tensor


def domain_losses(model: PreTrainedModel, windows: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean next-token loss of each domain in nats, float32 `[k]`.

    Args:
        model: a causal language model.
        windows: domain -> int64 `[n, length]`.

    Raises:
        UserError: bad tokens.
    """
    return torch.stack([measure_quality(model, tokens).nll.mean() for tokens in windows.values()])


def train_mixture(
    model: PreTrainedModel,
    windows: Mapping[str, torch.Tensor],
    held_out: Mapping[str, torch.Tensor],
    training: Training,
    *,
    references: torch.Tensor | None = None,
    every: int = 50,
    progress: str | None = None,
) -> MixtureCourse:
    """Train all parameters on several domains, in place, from equal shares.

    Args:
        model: a causal language model.
        windows: domain -> int64 `[n, length]`, as many windows of each as the steps take together.
        held_out: domain -> int64 `[m, length]`.
        training: see `Training`.
        references: losses that domains are compared with, `[k]`; None leaves shares as they are.
        every: steps between two measurements of the held-out losses.
        progress: label of a progress bar; None for no bar.

    Raises:
        UserError: domains that differ, windows of different shapes, and what
            `recovery.training.train` raises.
    """
    _check_domains(model, windows, held_out)
    # [n, domains, length]: a window of each domain, of which one is used
    candidates = torch.stack([*windows.values()], 1)
    steps = len(candidates) // training.batch
    mixture = _Mixture(model, held_out, references, every, steps, training.batch)
    with training_all(model, training):
        loss = train(
            mixture,
            candidates,
            training,
            lambda step, batch: step(batch),
            progress,
            settings=_settings(held_out, references, every),
        )
    # The last measurement, if the number of steps is a multiple of `every`.
    mixture.update()
    return MixtureCourse(
        torch.tensor(loss), mixture.losses.cpu(), mixture.shares.cpu(), mixture.drawn.cpu()
    )


def _check_domains(
    model: PreTrainedModel,
    windows: Mapping[str, torch.Tensor],
    held_out: Mapping[str, torch.Tensor],
) -> None:
    """Raise a `UserError` unless both have the same domains, and windows of one shape."""
    shapes = {tuple(tokens.shape) for tokens in windows.values()}
    if len(shapes) != 1 or list(windows) != list(held_out):
        raise UserError(
            f"domains {list(windows)}, {list(held_out)} must be the same and have windows of one "
            "shape"
        )
    for tokens in (*windows.values(), *held_out.values()):
        check_tokens(model, tokens, "windows")


def _settings(
    held_out: Mapping[str, torch.Tensor], references: torch.Tensor | None, every: int
) -> str:
    """What a checkpoint must agree in, beside the training itself, as a digest."""
    goal = None
    if references is not None:
        goal = references.tolist()
    digest = hashlib.sha256(repr((every, goal)).encode())
    add_tensors(digest, held_out.values())
    return digest.hexdigest()


class _Mixture(nn.Module):
    """The model with the state of its mixture in buffers, so that a checkpoint holds it.

    Called on candidates, it returns the loss. The buffer `owed` `[k]` is how far each domain is
    behind its share, in windows; the others are as in `MixtureCourse`.

    Args:
        model: as for `train_mixture`, like `held_out`, `references` and `every`.
        steps: number of steps.
        batch: windows in a step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        held_out: Mapping[str, torch.Tensor],
        references: torch.Tensor | None,
        every: int,
        steps: int,
        batch: int,
    ):
        super().__init__()
        self.model = model
        self._held_out = held_out
        self._references = references
        self._every = every
        # One row for the start, and one for every update.
        count = len(held_out)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("owed", torch.zeros(count))
        self.register_buffer("losses", torch.zeros(steps // every + 1, count))
        self.register_buffer("shares", torch.full((steps // every + 1, count), 1 / count))
        self.register_buffer("drawn", torch.zeros(steps, batch, dtype=torch.int64))

    def update(self) -> None:
        """Measure the domains if it is time to, and set the shares that follow."""
        number, late = divmod(int(self.step), self._every)
        if late:
            return
        # Dropout is off while losses are measured.
        mode = self.model.training
        self.losses[number] = domain_losses(self.model.eval(), self._held_out)
        self.model.train(mode)
        # The start has equal shares; without references they stay as they are.
        if number:
            self.shares[number] = self.shares[number - 1]
        if number and self._references is not None:
            self.shares[number] = new_shares(
                self.shares[number], self.losses[number], self._references
            )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Next-token loss of one window of each row of `batch [windows, domains, length]`."""
        self.update()
        step = int(self.step)
        for row in range(len(batch)):
            # Every domain is owed its share of a window; the one that is owed most is next.
            self.owed += self.shares[step // self._every]
            self.drawn[step, row] = self.owed.argmax()
            self.owed[self.drawn[step, row]] -= 1
        self.step += 1
        # Of each row of candidates, the window of the domain that is next.
        chosen = self.drawn[step].to(batch.device)
        rows = torch.arange(len(batch), device=batch.device)
        return next_token_loss(self.model, batch[rows, chosen])

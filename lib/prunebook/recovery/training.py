"""Recovery after pruning: one training loop, which trains all weights, or low-rank adapters that
are merged afterwards.

Hu et al., LoRA (ICLR 2022, arXiv 2106.09685), through `peft`; the loop goes through `accelerate`,
so that more devices are a matter of its configuration.
"""

import contextlib
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..errors import UserError
from ..files import write_atomic
from ..measure.memory import malloc_pool
from ..passes.backward import next_token_loss, restore_requires_grad
from ..passes.precision import matmul_precision


@dataclass(frozen=True)
class Training:
    """How `train` runs: AdamW, a linear warm-up, then a cosine to 0, or two lines; one pass over
    the windows.

    Args:
        learning_rate: at its peak.
        warmup: steps.
        batch: windows a step, on every device.
        second_rate: two stages in place of the cosine (FAQ of BitNet b1.58, microsoft/unilm): the
            rate falls on a line from `learning_rate` to 0; from half of the steps on, on the line
            from this to 0, without weight decay.
        weight_decay: of all that is trained.
        betas: of the optimiser's two moments.
        seed: of dropout and of new parameters.
        precision: of the passes, `exact` (the weights' dtype; float32 at least where all are
            trained) or `fast` (bfloat16 products).
        clip: norm of all gradients of a step that is not exceeded; None for any.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        checkpoint: file for what is trained, the optimiser and the step, written every
            `checkpoint_every` steps; a run that was broken off goes on from it with the same
            result, and it is removed at the end.
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
    model,
    tokens: torch.Tensor,
    training: Training,
    loss_of: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] = next_token_loss,
    progress: str | None = None,
    *,
    settings: str = "",
    groups: Sequence[Mapping] = (),
) -> list[float]:
    """Train whatever of the model requires gradients, in place.

    Args:
        tokens: int64 `[n, length]` for `loss_of`, in the order of training; what does not fill a
            last step is left out.
        loss_of: `(model, batch) -> loss`.
        progress: label of a progress bar, None for none.
        settings: of `loss_of`, in words: a checkpoint of others is another run's.
        groups: parameters of the model with settings of their own, as AdamW takes them:
            `{"params": [...], "lr": 0.1, "maximize": True}`. They share the schedule, unless they
            are `constant` (key of a truth value), and `clip` leaves them alone.

    Returns:
        The loss of each step of the whole run on this device.

    Raises:
        UserError: too few tokens, a bad `clip`, a loss that is not finite, or a checkpoint of
            another run.
    """
    accelerator = Accelerator(device_placement=False)
    a_step = training.batch * accelerator.num_processes
    steps = len(tokens) // a_step
    if not steps or tokens.shape[1] < 2:
        raise UserError(
            f"tokens {list(tokens.shape)} make no step of {a_step} windows of 2 tokens or more; "
            "give more"
        )
    if training.clip is not None and not training.clip > 0:
        raise UserError(
            f"clip {training.clip!r} is not allowed; use a norm above 0, as 1.0, or None"
        )
    trained = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    apart = {parameter for group in groups for parameter in group["params"]}
    rest = [parameter for parameter in trained.values() if parameter not in apart]
    optimiser = torch.optim.AdamW(
        [{"params": rest}, *map(dict, groups)],
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,  # 8 times as fast on CPU
    )
    schedule = _schedule(optimiser, training, steps)
    saved = model.state_dict().keys()
    state = trained | {name: buffer for name, buffer in model.named_buffers() if name in saved}
    run = _Checkpoint(training, settings, tokens, state, optimiser, schedule)
    losses = run.load()
    prepared = accelerator.prepare(model) if accelerator.num_processes > 1 else model
    device = next(model.parameters()).device
    model.train()
    try:
        bar = tqdm(range(len(losses), steps), desc=progress, unit="step", disable=progress is None)
        for step in bar:
            # dropout does not depend on where a run was broken off
            torch.manual_seed(training.seed + step)
            first = step * a_step + accelerator.process_index * training.batch
            batch = tokens[first : first + training.batch].to(device)
            with torch.enable_grad(), matmul_precision(device, training.precision):
                loss = loss_of(prepared, batch)
                accelerator.backward(loss)
            losses.append(loss.item())
            if not torch.isfinite(loss):
                raise UserError(
                    f"the loss of step {step + 1} is {losses[-1]}; use a smaller learning rate or "
                    "float32"
                )
            if training.second_rate is not None and step >= steps // 2:
                optimiser.param_groups[0]["weight_decay"] = 0.0
            if training.clip is not None:
                accelerator.clip_grad_norm_(rest, training.clip)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
            if (
                training.checkpoint
                and (step + 1) % training.checkpoint_every == 0
                and accelerator.is_main_process
            ):
                run.save(losses)
    finally:
        model.eval()
        optimiser.zero_grad()
    if accelerator.is_main_process:
        run.remove()
    return losses


def _schedule(optimiser, training: Training, steps: int):
    """The learning rate of each step."""
    fall = 1.0 if training.second_rate is None else training.second_rate / training.learning_rate

    def factor(step: int) -> float:
        peak = 1.0 if step < steps // 2 else fall
        if step < training.warmup:
            return peak * step / training.warmup
        if training.second_rate is not None:
            return peak * (1 - step / steps)
        return 0.5 * (
            1 + math.cos(math.pi * (step - training.warmup) / max(1, steps - training.warmup))
        )

    factors = [
        (lambda _: 1.0) if group.get("constant") else factor for group in optimiser.param_groups
    ]
    return torch.optim.lr_scheduler.LambdaLR(optimiser, factors)


class _Checkpoint:
    """Saves and restores the state of one run; another run's is refused."""

    def __init__(
        self,
        training: Training,
        settings: str,
        tokens: torch.Tensor,
        trained: dict,
        optimiser,
        schedule,
    ):
        self._path = Path(training.checkpoint) if training.checkpoint else None
        self._trained = trained
        self._parts = {"optimiser": optimiser, "schedule": schedule}
        shapes = [(name, tuple(parameter.shape)) for name, parameter in trained.items()]
        loop = (
            training.learning_rate,
            training.warmup,
            training.batch,
            training.seed,
            training.precision,
        )
        loop += (training.second_rate, training.weight_decay, training.betas)
        same = repr((loop, training.clip, settings, shapes))
        self._key = hashlib.sha256(
            same.encode() + tokens.cpu().contiguous().numpy().tobytes()
        ).hexdigest()

    def load(self) -> list[float]:
        """The losses so far."""
        if self._path is None or not self._path.exists():
            return []
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        if state["key"] != self._key:
            raise UserError(
                f"{self._path} is the checkpoint of another run; remove it, or name another file"
            )
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(state["trained"][name])
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return state["losses"]

    def save(self, losses: list[float]) -> None:
        state = {name: part.state_dict() for name, part in self._parts.items()}
        trained = {name: parameter.detach() for name, parameter in self._trained.items()}
        buffer = io.BytesIO()
        torch.save(state | {"key": self._key, "losses": losses, "trained": trained}, buffer)
        write_atomic(self._path, buffer.getvalue())

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def activation_checkpointing(model, training: Training) -> Iterator[None]:
    """While open, blocks compute their activations again in the backward pass, if the training asks
    for it."""

    # of the forward pass, which has one, and of what is computed again in the backward pass
    def contexts():
        return contextlib.nullcontext(), matmul_precision(model.device, training.precision)

    if not training.gradient_checkpointing:
        yield
        return
    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()  # a hook on the embedding, which enabling has left


@contextlib.contextmanager
def training_all(model, training: Training) -> Iterator[None]:
    """While open, all parameters of the model require gradients, in float32 where their dtype is
    narrower, which would round small steps away; and it is `recomputing` as the training asks.
    Afterwards they have the dtype they had."""
    dtypes = {parameter: parameter.dtype for parameter in model.parameters()}
    with restore_requires_grad(model), activation_checkpointing(model, training):
        model.requires_grad_(True)
        try:
            for parameter, dtype in dtypes.items():
                parameter.grad = None  # a gradient of before would be of another dtype
                parameter.data = parameter.data.to(torch.promote_types(dtype, torch.float32))
            yield
        finally:
            for parameter, dtype in dtypes.items():
                parameter.data = parameter.data.to(dtype)

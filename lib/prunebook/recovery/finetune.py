"""Recover a pruned model: full fine-tuning, low-rank adapters, a classification head."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from peft import LoraConfig, get_peft_model

from ..data.windows import check_tokens
from ..errors import UserError
from ..passes.backward import restore_requires_grad
from .training import Training, activation_checkpointing, train, training_all


def full(
    model, tokens: torch.Tensor, training: Training | None = None, progress: str | None = None
) -> list[float]:
    """Train all parameters with next-token loss, in place.

    Args:
        tokens: int64 `[n, length]`.
        training: see `Training`.
        progress: label of a progress bar, None for none.

    Returns:
        The loss of each step, in nats a token.

    Raises:
        UserError: bad tokens, and what `train` raises.
    """
    check_tokens(model, tokens, "tokens")
    training = training or Training()
    with training_all(model, training):
        return train(model, tokens, training, progress=progress)


def lora(
    model,
    tokens: torch.Tensor,
    training: Training | None = None,
    *,
    targets: Sequence[str],
    rank: int = 8,
    dropout: float = 0.05,
    progress: str | None = None,
) -> list[float]:
    """Train low-rank adapters with next-token loss and merge them into the weights, in place; all
    else is frozen.

    Args:
        tokens: int64 `[n, length]`.
        training: see `Training`.
        progress: label of a progress bar, None for none.
        targets: linears by the last part of their name, as `["gate_proj", "up_proj", "down_proj"]`.
        rank: r; alpha is equal to it, so that the update counts once.
        dropout: on the adapters' inputs.

    Returns:
        The loss of each step, in nats a token.

    Raises:
        UserError: bad tokens, a target that is no linear, a bad rank, and what `train` raises.
    """
    check_tokens(model, tokens, "tokens")
    training = training or Training()
    with adapters(model, training, targets=targets, rank=rank, dropout=dropout) as adapted:
        return train(adapted, tokens, training, progress=progress)


@contextlib.contextmanager
def adapters(
    model, training: Training, *, targets: Sequence[str], rank: int = 8, dropout: float = 0.05
) -> Iterator:
    """While open, linears have low-rank adapters, and nothing else requires gradients; it is
    `recomputing` as the training asks. Afterwards they are merged into the weights, in place, or,
    after an error, gone.

    Args:
        training: its seed is of the adapters' start.
        targets, rank, dropout: as for `lora`.

    Yields:
        The model as `peft` wraps it; the linears of `model` itself are replaced meanwhile, too.

    Raises:
        UserError: a target that is no linear, or a bad rank.
    """
    linears = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if not targets or set(targets) - linears:
        raise UserError(
            f"targets {list(targets)} are no linears here; use some of {', '.join(sorted(linears))}"
        )
    if type(rank) is not int or rank < 1:
        raise UserError(
            f"rank {rank!r} is not allowed for lora; use a whole number of 1 or more, as 8"
        )
    torch.manual_seed(training.seed)
    with restore_requires_grad(model):
        settings = LoraConfig(
            r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules=list(targets)
        )
        adapted = get_peft_model(model, settings)
        done = False
        try:
            with activation_checkpointing(adapted, training):
                yield adapted
            done = True
        finally:
            adapted.merge_and_unload() if done else adapted.unload()


def classifier(
    model,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    training: Training | None = None,
    progress: str | None = None,
) -> list[float]:
    """Train all parameters of a sequence classifier with cross-entropy, in place.

    Args:
        tokens: int64 `[n, length]`.
        labels: int64 `[n]`.
        training: see `Training`.
        progress: label of a progress bar.

    Returns:
        The loss of each step, in nats a window.

    Raises:
        UserError: labels that are not one a window or beyond the model's classes, and what `train`
            raises.
    """
    check_tokens(model, tokens, "tokens")
    if labels.shape != tokens.shape[:1]:
        raise UserError(
            f"labels {list(labels.shape)} are not one for each of {len(tokens)} windows"
        )
    if wrong := sorted(set(labels.tolist()) - set(range(model.config.num_labels))):
        raise UserError(
            f"label {wrong[0]} is none of the model's {model.config.num_labels} classes, 0 and up"
        )
    training = training or Training()

    def loss_of(classifier, batch):  # the label travels in front of its window
        logits = classifier(input_ids=batch[:, 1:]).logits.float()
        return torch.nn.functional.cross_entropy(logits, batch[:, 0])

    with training_all(model, training):
        return train(
            model,
            torch.cat([labels[:, None], tokens], 1),
            training,
            loss_of,
            progress,
            settings="classes",
        )

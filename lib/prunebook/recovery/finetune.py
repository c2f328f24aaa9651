"""Recover a pruned model: full fine-tuning, low-rank adapters, a classification head.

Hu et al., LoRA (ICLR 2022, arXiv 2106.09685), through `peft`.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from ..data.token_check import check_tokens
from ..errors import UserError
from ..models.anatomy import find_stack, sublayers
from ..passes.backward import restore_requires_grad
from .training import Training, activation_checkpointing, train, training_all


def full(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    training: Training | None = None,
    progress: str | None = None,
) -> list[float]:
    """Train all parameters with next-token loss, in place.

    Args:
        model: a causal language model.
        tokens: int64 `[n, length]`, in the order of training.
        training: see `Training`; None for its defaults.
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
    model: PreTrainedModel,
    tokens: torch.Tensor,
    training: Training | None = None,
    *,
    targets: Sequence[str],
    rank: int = 8,
    dropout: float = 0.05,
    progress: str | None = None,
) -> list[float]:
    """Train low-rank adapters with next-token loss and merge them into the weights, in place.

    All other parameters are frozen.

    Args:
        model: a causal language model.
        tokens: int64 `[n, length]`, in the order of training.
        training: see `Training`; None for its defaults.
        targets: linears by the last part of their name, e.g. `["up_proj", "down_proj"]`.
        rank: r; alpha is equal to it, so that the update counts once.
        dropout: share of the adapters' inputs that is dropped.
        progress: label of a progress bar, None for none.

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
    model: PreTrainedModel,
    training: Training,
    *,
    targets: Sequence[str],
    rank: int = 8,
    dropout: float = 0.05,
) -> Iterator[PeftModel]:
    """While open, linears have low-rank adapters, and nothing else requires gradients.

    Afterwards the adapters are merged into the weights, in place; after an error they are removed.
    Activations are computed again as the training asks.

    Args:
        model: a causal language model.
        training: see `Training`; its seed is that of the adapters' initial weights.
        targets: as for `lora`.
        rank: as for `lora`.
        dropout: as for `lora`.

    Yields:
        The model as `peft` wraps it; meanwhile the linears of `model` itself are replaced, too.

    Raises:
        UserError: a target that is no linear, or a bad rank.
    """
    _check_adapters(model, targets, rank)
    torch.manual_seed(training.seed)
    with restore_requires_grad(model):
        settings = LoraConfig(
            r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules=list(targets)
        )
        adapted = get_peft_model(model, settings)
        try:
            with activation_checkpointing(adapted, training):
                yield adapted
        except BaseException:
            adapted.unload()
            raise
        adapted.merge_and_unload()


def query_value_names(model: PreTrainedModel) -> list[str]:
    """The last part of the names of the query and the value projection, e.g. as `targets`.

    Args:
        model: a causal language model whose blocks have both.

    Raises:
        UserError: an architecture without heads that can be told apart.
    """
    first = find_stack(model)[1][0]
    parts = sublayers(first)
    return [
        name.rpartition(".")[2]
        for name, module in first.named_modules()
        if module in (parts.query, parts.value)
    ]


def _check_adapters(model: PreTrainedModel, targets: Sequence[str], rank: int) -> None:
    """Raise a `UserError` unless all targets are linears and the rank is a whole number."""
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
            f"rank {rank!r} is not allowed for lora; use a whole number of 1 or more, e.g. 8"
        )


def classifier(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    training: Training | None = None,
    progress: str | None = None,
) -> list[float]:
    """Train all parameters of a sequence classifier with cross-entropy, in place.

    Args:
        model: a sequence classifier.
        tokens: int64 `[n, length]`, in the order of training.
        labels: int64 `[n]`, the class of each window.
        training: see `Training`; None for its defaults.
        progress: label of a progress bar, None for none.

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
    unknown = sorted(set(labels.tolist()) - set(range(model.config.num_labels)))
    if unknown:
        raise UserError(
            f"label {unknown[0]} is none of the model's {model.config.num_labels} classes, 0 and up"
        )
    training = training or Training()
    # The label travels in front of its window.
    labelled = torch.cat([labels[:, None], tokens], 1)
    with training_all(model, training):
        return train(model, labelled, training, _class_loss, progress, settings="classes")


def _class_loss(model: PreTrainedModel, batch: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of `batch [n, 1 + length]`, whose first column holds the labels."""
    logits = model(input_ids=batch[:, 1:]).logits.float()
    return F.cross_entropy(logits, batch[:, 0])

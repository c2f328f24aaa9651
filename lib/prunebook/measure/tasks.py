"""Measure a model on a task: the logits of a sequence classifier."""

import torch
from transformers import PreTrainedModel

from ..data.token_check import check_tokens
from ..errors import UserError
from ..passes.precision import matmul_precision
from .baseline import resolve_precision, windows_per_batch


@torch.no_grad()
def classify(model: PreTrainedModel, tokens: torch.Tensor, precision: str = "auto") -> torch.Tensor:
    """Logits of a sequence classifier, float32 `[n, classes]` on the CPU.

    Args:
        model: the classifier.
        tokens: int64 `[n, length]`.
        precision: `auto`, `exact` (the model's dtype) or `fast` (bfloat16 matrix products).

    Raises:
        UserError: a model that is no classifier, bad tokens or precision.
    """
    if not type(model).__name__.endswith("ForSequenceClassification"):
        raise UserError(
            f"{type(model).__name__} is no sequence classifier; load one, e.g. "
            "load_model(..., classes=5)"
        )
    check_tokens(model, tokens, "tokens")
    precision = resolve_precision(model, precision)
    logits = []
    for batch in tokens.split(windows_per_batch(tokens)):
        with matmul_precision(model.device, precision):
            logits.append(model(input_ids=batch.to(model.device)).logits.float().cpu())
    return torch.cat(logits)

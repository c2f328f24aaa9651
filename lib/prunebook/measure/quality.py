"""Quality of a causal language model: perplexity, and KL divergence and agreement to the dense one.

Perplexity here is exp of the mean negative log-likelihood (NLL) over all predicted tokens of all
windows. Every window of length L predicts L - 1 tokens, and windows do not see each other.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..kernels.logits import LogitMetrics, compare_logits
from .baseline import (
    DenseBaseline,
    check_windows,
    held_out_pass,
    resolve_precision,
    windows_per_batch,
)


@dataclass(frozen=True)
class Measurement:
    """Quality of a model on held-out windows.

    nll: mean NLL of each window in nats, float32 `[n]`.
    kl: mean KL(dense || model) per token in nats; None without a dense baseline.
    agreement: fraction of tokens whose top-1 prediction is the dense model's; None without a
        baseline.
    seconds: time of the forward passes with their reductions.
    tokens: number of predicted tokens.
    precision: how the passes computed, `exact` or `fast`.
    """

    nll: torch.Tensor
    kl: float | None
    agreement: float | None
    seconds: float
    tokens: int
    precision: str

    @property
    def perplexity(self) -> float:
        """exp of the mean NLL."""
        return math.exp(self.nll.mean().item())

    @property
    def tokens_per_second(self) -> float:
        """Speed of the evaluation."""
        return self.tokens / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Scalars for a result row."""
        return {
            "perplexity": self.perplexity,
            "kl": self.kl,
            "agreement": self.agreement,
            "evaluation_seconds": self.seconds,
            "evaluation_tokens_per_second": self.tokens_per_second,
            "evaluation_precision": self.precision,
        }


def perplexity(model: PreTrainedModel, tokens: torch.Tensor, precision: str = "auto") -> float:
    """exp(mean NLL over all predicted tokens of all windows).

    Args:
        model: a causal language model.
        tokens: int64 `[n, length]`, length at least 2.
        precision: `auto`, `exact` (the model's dtype) or `fast` (bfloat16 matrix products).

    Raises:
        UserError: bad tokens or precision.
    """
    return measure_quality(model, tokens, precision=precision).perplexity


@torch.no_grad()
def measure_quality(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    dense: DenseBaseline | None = None,
    precision: str = "auto",
) -> Measurement:
    """Perplexity and, with a dense baseline of the same tokens, KL divergence and top-1 agreement.

    Args:
        model: a causal language model.
        tokens: int64 `[n, length]`, length at least 2.
        dense: the dense model's baseline on these tokens; None to measure the NLL alone.
        precision: `auto`, `exact` (the model's dtype) or `fast` (bfloat16 matrix products).

    Raises:
        UserError: bad tokens or precision, or a baseline of other tokens.
    """
    check_windows(model, tokens)
    if dense is not None and not torch.equal(dense.tokens.cpu(), tokens.cpu()):
        raise UserError(
            "the dense baseline was made from other tokens; make it with the tokens you measure on"
        )
    precision = resolve_precision(model, precision)
    nll = []
    divergence = 0.0
    agreed = 0
    if dense is not None:
        dense = dense.with_head_on(model.device)
    start = time.perf_counter()
    for metrics in _metrics(model, tokens, dense, precision):
        nll.append(metrics.nll.view(-1, tokens.shape[1] - 1).mean(1).cpu())
        if dense is not None:
            divergence += metrics.kl.double().sum().item()
            agreed += int(metrics.agrees.sum())
    predicted = len(tokens) * (tokens.shape[1] - 1)
    kl = agreement = None
    if dense is not None:
        kl = divergence / predicted
        agreement = agreed / predicted
    seconds = time.perf_counter() - start
    return Measurement(torch.cat(nll), kl, agreement, seconds, predicted, precision)


def _metrics(
    model: PreTrainedModel, tokens: torch.Tensor, dense: DenseBaseline | None, precision: str
) -> Iterator[LogitMetrics]:
    """Metrics of the predicted tokens of some windows, a batch at a time."""
    size = windows_per_batch(tokens)
    for first in range(0, len(tokens), size):
        windows = slice(first, first + size)
        batch = tokens[windows].to(model.device)
        with held_out_pass(model, precision):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        reference = None
        if dense is not None:
            reference = dense.logits(windows)
        yield compare_logits(logits.flatten(0, 1), batch[:, 1:].flatten(), reference)

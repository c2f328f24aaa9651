"""Measure a causal language model: perplexity, KL divergence to the dense model, top-1 agreement
with it.

Perplexity here is exp of the mean negative log-likelihood over all predicted tokens of all windows;
every window of length L predicts L - 1 tokens, and windows do not see each other.
"""

import contextlib
import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from ..data.windows import check_tokens
from ..errors import UserError
from ..files import cached
from ..kernels.logits import compare_logits
from ..passes.precision import chosen_ways, has_fast_bfloat16, matmul_precision

_BATCH_TOKENS = 2048  # logits of 2,048 tokens and 49,152 words take 400 MB in float32
_BASELINE_FILE = "baseline.safetensors"
_BASELINE = 4  # raise when the same weights and tokens would give other numbers


@dataclass(frozen=True)
class DenseBaseline:
    """The dense model's last hidden states `[n, length - 1, width]`, its head `[vocabulary, width]`
    (a copy) and its NLL per window `[n]` in nats. Logits are recomputed from them: exact, at 1/85
    of the size."""

    hidden: torch.Tensor
    head: torch.Tensor
    bias: torch.Tensor | None
    nll: torch.Tensor
    tokens: torch.Tensor
    precision: str

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll.mean().item())


@dataclass(frozen=True)
class Measurement:
    """Quality of a model on held-out windows. `nll [n]` is the mean NLL of each window in nats;
    `kl` the mean KL(dense || model) per token in nats; `agreement` the fraction of equal top-1
    tokens. The last two are None without a dense baseline. `seconds` is the time of the forward
    passes with their reductions."""

    nll: torch.Tensor
    kl: float | None
    agreement: float | None
    seconds: float
    tokens: int
    precision: str

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll.mean().item())

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def to_dict(self) -> dict:
        """Scalars for a result row."""
        return {
            "perplexity": self.perplexity,
            "kl": self.kl,
            "agreement": self.agreement,
            "evaluation_seconds": self.seconds,
            "evaluation_tokens_per_second": self.tokens_per_second,
            "evaluation_precision": self.precision,
        }


def resolve_precision(model, precision: str) -> str:
    """`auto` is `fast` (bfloat16 products) where the device has them natively, else `exact`."""
    if precision != "auto":
        return precision
    return "fast" if has_fast_bfloat16(model.device) else "exact"


def perplexity(model, tokens: torch.Tensor, precision: str = "auto") -> float:
    """exp(mean NLL over all predicted tokens of all windows).

    Args:
        tokens: int64 `[n, length]`, length at least 2.
        precision: `auto`, `exact` (the model's dtype) or `fast` (bfloat16 matrix products).

    Raises:
        UserError: bad tokens or precision.
    """
    return measure_quality(model, tokens, precision=precision).perplexity


@torch.no_grad()
def measure_quality(
    model, tokens: torch.Tensor, dense: DenseBaseline | None = None, precision: str = "auto"
) -> Measurement:
    """Perplexity and, beside a dense baseline of the same tokens, KL divergence and top-1
    agreement.

    Raises:
        UserError: bad tokens or precision, or a baseline of other tokens.
    """
    _check_windows(model, tokens)
    if dense is not None and not torch.equal(dense.tokens.cpu(), tokens.cpu()):
        raise UserError(
            "the dense baseline was made from other tokens; make it with the tokens you measure on"
        )
    precision = resolve_precision(model, precision)
    if dense is not None:
        head = dense.head.to(model.device)
        bias = None if dense.bias is None else dense.bias.to(model.device)
    nll = []
    divergence = 0.0
    agreed = 0
    start = time.perf_counter()
    size = windows_per_batch(tokens)
    for first in range(0, len(tokens), size):
        batch = tokens[first : first + size].to(model.device)
        with _forward(model, precision):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        reference = None
        if dense is not None:
            with matmul_precision(model.device, "exact"):
                hidden = dense.hidden[first : first + size].to(model.device)
                reference = F.linear(hidden, head, bias).flatten(0, 1)
        compared = compare_logits(logits.flatten(0, 1), batch[:, 1:].flatten(), reference)
        nll.append(compared.nll.view(len(batch), -1).mean(1).cpu())
        if dense is not None:
            divergence += compared.kl.double().sum().item()
            agreed += int(compared.agrees.sum())
    predicted = len(tokens) * (tokens.shape[1] - 1)
    kl, agreement = (None, None) if dense is None else (divergence / predicted, agreed / predicted)
    return Measurement(
        torch.cat(nll), kl, agreement, time.perf_counter() - start, predicted, precision
    )


@contextlib.contextmanager
def _forward(model, precision: str):
    """`matmul_precision` for the blocks; the head stays out of `fast`, whose bfloat16 logits would
    move perplexity by some 0.03 % for a few percent of the time."""
    head = model.get_output_embeddings()
    around_head = contextlib.ExitStack()

    def enter(_, inputs):
        around_head.enter_context(torch.autocast(model.device.type, enabled=False))
        around_head.enter_context(matmul_precision(model.device, "exact"))
        return (inputs[0].to(head.weight.dtype),)

    handles = [
        head.register_forward_pre_hook(enter),
        head.register_forward_hook(lambda *_: around_head.close(), always_call=True),
    ]
    try:
        with matmul_precision(model.device, precision):
            yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def dense_baseline(model, tokens: torch.Tensor, precision: str = "auto") -> DenseBaseline:
    """What `measure_quality` compares a pruned model with; cached on disk by (model weights, tokens,
    precision).

    Args:
        model: the dense model.
        tokens: int64 `[n, length]`, the held-out windows.

    Raises:
        UserError: bad tokens, or a model whose logits are not a linear map of its last hidden
            states.
    """
    _check_windows(model, tokens)
    precision = resolve_precision(model, precision)
    head = model.get_output_embeddings()
    weight = head.weight.detach().clone()
    bias = None if head.bias is None else head.bias.detach().clone()

    def run(folder: Path) -> None:
        hidden, nll = _run_dense(model, tokens, precision)
        save_file({"hidden": hidden, "nll": nll}, folder / _BASELINE_FILE)

    identity = [_fingerprint(model, tokens, precision)]
    known = cached("baselines", identity, run, lambda folder: load_file(folder / _BASELINE_FILE))
    return DenseBaseline(known["hidden"], weight, bias, known["nll"], tokens.clone(), precision)


def _run_dense(model, tokens: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Input of the head `[n, length - 1, width]` and NLL per window `[n]`, both on the CPU."""
    head = model.get_output_embeddings()
    seen = []
    hidden = []
    nll = []
    with _forward(model, precision):
        handle = head.register_forward_hook(
            lambda _, inputs, output: seen.append((inputs[0], output))
        )
        try:
            for batch in tokens.split(windows_per_batch(tokens)):
                batch = batch.to(model.device)
                seen.clear()
                logits = model(input_ids=batch, use_cache=False).logits
                states, before = seen[0]
                if not torch.equal(logits, before):
                    raise UserError(
                        f"{type(model).__name__} changes its logits after the head; measure it "
                        f"without a dense baseline"
                    )
                losses = compare_logits(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).nll
                nll.append(losses.view(len(batch), -1).mean(1).cpu())
                hidden.append(states[:, :-1].cpu())
        finally:
            handle.remove()
    return torch.cat(hidden).contiguous(), torch.cat(nll)


def windows_per_batch(tokens: torch.Tensor) -> int:
    return max(1, _BATCH_TOKENS // tokens.shape[1])


def check_head(model) -> None:
    """Raise a `UserError` unless the model predicts words."""
    if model.get_output_embeddings() is None:
        raise UserError(
            f"{type(model).__name__} has no language-model head; use a causal language model"
        )


def _check_windows(model, tokens: torch.Tensor) -> None:
    check_head(model)
    check_tokens(model, tokens, "tokens")
    if tokens.shape[1] < 2:
        raise UserError(
            "tokens must have windows of at least 2 tokens to predict one, not "
            f"{list(tokens.shape)}"
        )


def _fingerprint(model, tokens: torch.Tensor, precision: str) -> str:
    """Hash of every weight, the tokens, the precision and what computes with them."""
    ways = chosen_ways(model.device, precision)
    versions = f"{_BASELINE} {torch.__version__} {transformers.__version__} {ways}"
    digest = hashlib.sha256(
        f"{versions} {precision} {model.device.type} {model.config.to_json_string()}".encode()
    )
    add_tensors(digest, (*model.state_dict().values(), tokens))
    return digest.hexdigest()[:32]


def add_tensors(digest, tensors: Iterable[torch.Tensor]) -> None:
    """Let a hash of `hashlib` take the bytes of tensors, whatever their dtype and device."""
    for tensor in tensors:
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())

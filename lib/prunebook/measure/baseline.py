"""Read held-out windows with a model, and keep what the dense model says about them.

A pruned model is measured beside the dense one. The dense model's passes over the held-out windows
are made once and kept on disk.
"""

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ..data.token_check import check_tokens
from ..errors import UserError
from ..files import cached
from ..kernels.logits import compare_logits
from ..passes.hooks import forward_hooks, forward_pre_hooks
from ..passes.precision import chosen_ways, has_fast_bfloat16, matmul_precision

BATCH_TOKENS = 2048  # logits of 2,048 tokens and 49,152 words take 400 MB in float32
_BASELINE_FILE = "baseline.safetensors"
# Version of the kept files; raise it when the same input would give other numbers.
_VERSION = 4


@dataclass(frozen=True)
class DenseBaseline:
    """What is kept of the dense model's passes over held-out windows.

    hidden: last hidden states `[n, length - 1, width]`. Logits are computed again from them, which
        is exact and takes 1/85 of the size.
    head: a copy of the head's weight, `[vocabulary, width]`.
    bias: a copy of the head's bias, `[vocabulary]`; None for a head without one.
    nll: mean NLL of each window in nats, `[n]`.
    tokens: the windows, int64 `[n, length]`.
    precision: how the passes computed, `exact` or `fast`.
    """

    hidden: torch.Tensor
    head: torch.Tensor
    bias: torch.Tensor | None
    nll: torch.Tensor
    tokens: torch.Tensor
    precision: str

    @property
    def perplexity(self) -> float:
        """exp of the mean NLL."""
        return math.exp(self.nll.mean().item())

    def with_head_on(self, device: torch.device) -> "DenseBaseline":
        """The same baseline whose head is on `device`; hidden states stay where they are."""
        bias = None if self.bias is None else self.bias.to(device)
        return dataclasses.replace(self, head=self.head.to(device), bias=bias)

    def logits(self, windows: slice) -> torch.Tensor:
        """Logits of some windows `[windows * (length - 1), vocabulary]`, on the head's device."""
        with matmul_precision(self.head.device, "exact"):
            hidden = self.hidden[windows].to(self.head.device)
            return F.linear(hidden, self.head, self.bias).flatten(0, 1)


@torch.no_grad()
def dense_baseline(
    model: PreTrainedModel, tokens: torch.Tensor, precision: str = "auto"
) -> DenseBaseline:
    """What `measure_quality` compares a pruned model with.

    It is kept on disk, by the model's weights, the tokens and the precision.

    Args:
        model: the dense model.
        tokens: int64 `[n, length]`, the held-out windows.
        precision: `auto`, `exact` (the model's dtype) or `fast` (bfloat16 matrix products).

    Raises:
        UserError: bad tokens, or a model whose logits are not a linear map of its last hidden
            states.
    """
    check_windows(model, tokens)
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


def _run_dense(
    model: PreTrainedModel, tokens: torch.Tensor, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input of the head `[n, length - 1, width]` and NLL per window `[n]`, both on the CPU."""
    head = model.get_output_embeddings()
    passed = []  # input and output of the head in the last pass
    hidden = []
    nll = []

    def record(_, inputs, output):
        passed.append((inputs[0], output))

    with held_out_pass(model, precision), forward_hooks([(head, record)]):
        for batch in tokens.split(windows_per_batch(tokens)):
            batch = batch.to(model.device)
            passed.clear()
            logits = model(input_ids=batch, use_cache=False).logits
            states, head_output = passed[0]
            if not torch.equal(logits, head_output):
                raise UserError(
                    f"{type(model).__name__} changes its logits after the head; measure it "
                    "without a dense baseline"
                )
            losses = compare_logits(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).nll
            nll.append(losses.view(len(batch), -1).mean(1).cpu())
            hidden.append(states[:, :-1].cpu())
    return torch.cat(hidden).contiguous(), torch.cat(nll)


@contextlib.contextmanager
def held_out_pass(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """Context for forward passes: `matmul_precision` for the blocks, always `exact` for the head.

    bfloat16 logits of the head would move perplexity by some 0.03 % and save a few percent of the
    time.
    """
    head = model.get_output_embeddings()
    around_head = contextlib.ExitStack()

    def enter(_, inputs):
        around_head.enter_context(torch.autocast(model.device.type, enabled=False))
        around_head.enter_context(matmul_precision(model.device, "exact"))
        return (inputs[0].to(head.weight.dtype),)

    def leave(*_):
        around_head.close()

    with (
        forward_pre_hooks([(head, enter)]),
        forward_hooks([(head, leave)], always_call=True),
        matmul_precision(model.device, precision),
    ):
        yield


def resolve_precision(model: PreTrainedModel, precision: str) -> str:
    """`auto` is `fast` (bfloat16 products) where the device has them natively, else `exact`."""
    if precision != "auto":
        return precision
    if has_fast_bfloat16(model.device):
        return "fast"
    return "exact"


def windows_per_batch(tokens: torch.Tensor) -> int:
    """How many of the windows `tokens [n, length]` go into one pass, at least one."""
    return max(1, BATCH_TOKENS // tokens.shape[1])


def check_head(model: PreTrainedModel) -> None:
    """Raise a `UserError` unless the model predicts words."""
    if model.get_output_embeddings() is None:
        raise UserError(
            f"{type(model).__name__} has no language-model head; use a causal language model"
        )


def check_windows(model: PreTrainedModel, tokens: torch.Tensor) -> None:
    """Raise a `UserError` unless the model predicts words and each window has one to predict."""
    check_head(model)
    check_tokens(model, tokens, "tokens")
    if tokens.shape[1] < 2:
        raise UserError(
            "tokens must have windows of at least 2 tokens to predict one, not "
            f"{list(tokens.shape)}"
        )


def _fingerprint(model: PreTrainedModel, tokens: torch.Tensor, precision: str) -> str:
    """Hash of every weight, the tokens, the precision and what computes with them."""
    ways = chosen_ways(model.device, precision)
    versions = f"{_VERSION} {torch.__version__} {transformers.__version__} {ways}"
    digest = hashlib.sha256(
        f"{versions} {precision} {model.device.type} {model.config.to_json_string()}".encode()
    )
    add_tensors(digest, (*model.state_dict().values(), tokens))
    return digest.hexdigest()[:32]


def add_tensors(digest, tensors: Iterable[torch.Tensor]) -> None:
    """Feed the bytes of tensors into a hash of `hashlib`, whatever their dtype and device."""
    for tensor in tensors:
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())

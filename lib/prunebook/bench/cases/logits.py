"""Logits compared with a reference in one pass, beside torch, which writes log-probabilities."""

import torch
import torch.nn.functional as F

from ...kernels.logits import LogitMetrics, compare_logits
from .. import work
from ..case import Case, Operands, Provider

KERNEL = "logits"
_ALLOWED = 1e-4  # allowed error of a token's NLL and KL, in nats
_TOKENS_PER_CHUNK = 256  # the float64 truth is computed for this many tokens at a time


def cases() -> list[Case]:
    """The cases of this family."""
    shapes = ((4096, 49152, 0), (16384, 32000, 1), (4096, 128256, 1))
    return [case(tokens, vocabulary, rank) for tokens, vocabulary, rank in shapes]


def case(tokens: int, vocabulary: int, rank: int) -> Case:
    """The case of one number of tokens and one vocabulary."""
    compiled = torch.compile(_torch, dynamic=False)
    providers = [
        Provider("prunebook", lambda o: compare_logits(o["logits"], o["targets"], o["reference"])),
        Provider("torch", _torch, note="log_softmax, cross_entropy, kl_div, argmax, in float32"),
        Provider("torch, compiled", compiled, note="the first call compiles"),
    ]
    return Case(
        KERNEL,
        {"tokens": tokens, "vocabulary": vocabulary},
        work.compare_logits(tokens, vocabulary),
        lambda generator: _operands(generator, tokens, vocabulary),
        _truth,
        _error,
        providers,
        allowed=_ALLOWED,
        rank=rank,
        seconds=30,
    )


def _operands(generator: torch.Generator, tokens: int, vocabulary: int) -> Operands:
    """Logits as wide as those of a language model, and a reference that is a little off."""
    options = {"generator": generator, "device": generator.device}
    logits = 3 * torch.randn(tokens, vocabulary, **options)
    reference = logits + 0.3 * torch.randn(tokens, vocabulary, **options)
    targets = torch.randint(vocabulary, (tokens,), **options)
    return {"logits": logits.bfloat16(), "reference": reference.bfloat16(), "targets": targets}


def _torch(o: Operands) -> LogitMetrics:
    q = F.log_softmax(o["logits"].float(), dim=1)
    p = F.log_softmax(o["reference"].float(), dim=1)
    kl = F.kl_div(q, p, reduction="none", log_target=True).sum(1)
    agrees = o["logits"].argmax(1) == o["reference"].argmax(1)
    return LogitMetrics(
        F.cross_entropy(o["logits"].float(), o["targets"], reduction="none"), kl, agrees
    )


def _truth(o: Operands) -> dict[str, torch.Tensor]:
    """NLL and KL in float64, agreement, and where agreement is `clear`.

    It is not clear where two words have the largest logit, which bfloat16 makes possible: torch
    takes any of them on a GPU.
    """
    nll = []
    kl = []
    clear = []
    chunks = [o[name].split(_TOKENS_PER_CHUNK) for name in ("logits", "reference", "targets")]
    for z, r, target in zip(*chunks, strict=True):
        q = F.log_softmax(z.double(), dim=1)
        p = F.log_softmax(r.double(), dim=1)
        nll.append(F.nll_loss(q, target, reduction="none"))
        kl.append((p.exp() * (p - q)).sum(1))
        clear.append(_has_one_maximum(z) & _has_one_maximum(r))
    agrees = o["logits"].argmax(1) == o["reference"].argmax(1)
    return {"nll": torch.cat(nll), "kl": torch.cat(kl), "agrees": agrees, "clear": torch.cat(clear)}


def _has_one_maximum(logits: torch.Tensor) -> torch.Tensor:
    """Whether one word alone has the largest logit, bool `[tokens]`."""
    return (logits == logits.amax(1, keepdim=True)).sum(1) == 1


def _error(result: LogitMetrics, truth: dict[str, torch.Tensor]) -> float:
    """The largest difference in nats; infinite where a clear agreement is wrong."""
    if ((result.agrees != truth["agrees"]) & truth["clear"]).any():
        return float("inf")
    return max((getattr(result, name) - truth[name]).abs().max().item() for name in ("nll", "kl"))

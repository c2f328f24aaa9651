"""Logits beside those of a reference, reduced in one pass, beside log-probabilities written out by
torch."""

import torch
import torch.nn.functional as F

from ...kernels.logits import LogitMetrics, compare_logits
from .. import work
from ..case import Case, Operands, Provider

KERNEL = "logits"
_ALLOWED = 1e-4  # nats, of NLL and KL of a token
_AT_A_TIME = 256  # tokens whose truth is computed together, in float64


def cases() -> list[Case]:
    shapes = ((4096, 49152, 0), (16384, 32000, 1), (4096, 128256, 1))
    return [case(tokens, vocabulary, rank) for tokens, vocabulary, rank in shapes]


def case(tokens: int, vocabulary: int, rank: int) -> Case:
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
    q, p = (F.log_softmax(o[name].float(), dim=1) for name in ("logits", "reference"))
    kl = F.kl_div(q, p, reduction="none", log_target=True).sum(1)
    agrees = o["logits"].argmax(1) == o["reference"].argmax(1)
    return LogitMetrics(
        F.cross_entropy(o["logits"].float(), o["targets"], reduction="none"), kl, agrees
    )


def _truth(o: Operands) -> dict[str, torch.Tensor]:
    """NLL and KL in float64, some tokens at a time, agreement, and where it is `clear`: two words
    may be on top in bfloat16, and torch takes any of them on a GPU."""
    nll = []
    kl = []
    clear = []
    for z, r, target in zip(
        *(o[name].split(_AT_A_TIME) for name in ("logits", "reference", "targets")), strict=True
    ):
        q, p = (F.log_softmax(x.double(), dim=1) for x in (z, r))
        nll.append(F.nll_loss(q, target, reduction="none"))
        kl.append((p.exp() * (p - q)).sum(1))
        clear.append(
            torch.stack([(x == x.amax(1, keepdim=True)).sum(1) == 1 for x in (z, r)]).all(0)
        )
    agrees = o["logits"].argmax(1) == o["reference"].argmax(1)
    return {"nll": torch.cat(nll), "kl": torch.cat(kl), "agrees": agrees, "clear": torch.cat(clear)}


def _error(result: LogitMetrics, truth: dict[str, torch.Tensor]) -> float:
    """The largest difference in nats, infinite where a clear agreement is not told right."""
    if ((result.agrees != truth["agrees"]) & truth["clear"]).any():
        return float("inf")
    return max((getattr(result, name) - truth[name]).abs().max().item() for name in ("nll", "kl"))

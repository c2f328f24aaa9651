"""Logits compared with those of a reference: NLL of the target, KL divergence, equal top-1 tokens.

All come from raw logits in one pass over the vocabulary; no log-probabilities are written. With
`p = softmax(r)` of the reference, `q = softmax(z)`, the maxima `m_r` and `m_z`, and the sums
`s_r = sum e^(r - m_r)` and `s_z` likewise,

    KL(p || q) = A / s_r - ln s_r + ln s_z,    A = sum e^(r - m_r) ((r - m_r) - (z - m_z)).

Both sides are shifted, so that large logits do not cancel, and equal logits give exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import UserError
from .launch import jit, next_power_of_2, on_device, or_unread, runs_natively, tl

_ROWS_PER_CHUNK = 8  # torch takes so many rows at a time: they stay in the cache of a CPU
_BLOCK = 4096  # a program takes so many logits at a time


@dataclass(frozen=True)
class LogitMetrics:
    """Metrics of each token, `[tokens]`.

    Attributes:
        nll: float32, the negative log-likelihood of the target in nats.
        kl: float32, KL(reference || logits) in nats; None without a reference.
        agrees: bool, whether the top-1 tokens are equal, the first one where logits are equal; None
            without a reference.
    """

    nll: torch.Tensor
    kl: torch.Tensor | None = None
    agrees: torch.Tensor | None = None


def compare_logits(
    logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None = None
) -> LogitMetrics:
    """Reduce logits over the vocabulary, in float32.

    Args:
        logits: `[tokens, vocabulary]`, of any float dtype.
        targets: int64 `[tokens]`, ids of the next tokens; -100 for no target, whose NLL is 0. No
            other id may lie outside the vocabulary.
        reference: logits of the same shape. A word whose logits are both -inf counts nothing.

    Raises:
        UserError: shapes that do not fit each other.
    """
    if logits.ndim != 2 or not logits.shape[1]:
        raise UserError(f"logits have shape {list(logits.shape)}; use [tokens, vocabulary]")
    _check_shape("targets", targets, logits, logits.shape[:1])
    if reference is not None:
        _check_shape("reference", reference, logits, logits.shape)
    if runs_natively(logits, targets, reference):
        return launch_compare(logits, targets, reference)
    return compare_logits_reference(logits, targets, reference)


def _check_shape(
    name: str, tensor: torch.Tensor, logits: torch.Tensor, shape: Sequence[int]
) -> None:
    """Raise a `UserError` unless the tensor has the shape that these logits need."""
    if tensor.shape != shape:
        raise UserError(
            f"{name} has shape {list(tensor.shape)}; logits {list(logits.shape)} need {list(shape)}"
        )


def compare_logits_reference(
    logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None = None
) -> LogitMetrics:
    """`compare_logits` in torch; it defines what the kernel computes."""
    nll = torch.empty(len(logits), device=logits.device)
    kl = torch.empty_like(nll)
    agrees = torch.empty_like(nll, dtype=torch.bool)
    for first in range(0, len(logits), _ROWS_PER_CHUNK):
        rows = slice(first, first + _ROWS_PER_CHUNK)
        nll[rows] = F.cross_entropy(logits[rows].float(), targets[rows], reduction="none")
        if reference is None:
            continue
        z, z_sum, z_best = _shifted(logits[rows])
        r, r_sum, r_best = _shifted(reference[rows])
        agrees[rows] = z_best == r_best
        weight = r.exp()
        difference = r.sub_(z).masked_fill_(weight == 0, 0)
        kl[rows] = torch.linalg.vecdot(weight, difference) / r_sum + (z_sum.log() - r_sum.log())
    if reference is None:
        return LogitMetrics(nll)
    return LogitMetrics(nll, kl, agrees)


def _shifted(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits less their maximum in float32, the sum of their exponentials, the maximum's place."""
    largest, best = logits.max(1, keepdim=True)
    z = logits.float() - largest
    return z, z.exp().sum(1), best.squeeze(1)


@on_device
def launch_compare(
    logits: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor | None
) -> LogitMetrics:
    """`compare_logits` by the kernel, for checked arguments."""
    tokens, vocabulary = logits.shape
    new = {"device": logits.device}
    nll = torch.empty(tokens, **new)
    kl = torch.empty(tokens, **new)
    agrees = torch.empty(tokens, dtype=torch.bool, **new)
    other = or_unread(reference, logits)
    block = min(next_power_of_2(vocabulary), _BLOCK)
    if tokens:
        _compare_kernel[(tokens,)](
            logits,
            other,
            targets.contiguous(),
            nll,
            kl,
            agrees,
            *logits.stride(),
            *other.stride(),
            VOCABULARY=vocabulary,
            BOTH=reference is not None,
            BLOCK=block,
            num_warps=max(block // 512, 1),
        )
    if reference is None:
        return LogitMetrics(nll)
    return LogitMetrics(nll, kl, agrees)


@jit
def _compare_kernel(
    logits,
    reference,
    targets,
    nll,
    kl,
    agrees,
    z_row,
    z_column,
    r_row,
    r_column,
    VOCABULARY: tl.constexpr,
    BOTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program for one token.

    Maxima, sums and A are carried along the vocabulary and rescaled where a maximum grows.
    """
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK).to(tl.int64)
    z_max = -3.0e38  # below any logit that counts, and finite: differences with it are no NaN
    z_sum = 0.0
    z_best = 0
    r_max = -3.0e38
    r_sum = 0.0
    r_best = 0
    total = 0.0  # A
    for start in range(0, VOCABULARY, BLOCK):
        inside = start + place < VOCABULARY
        z = tl.load(
            logits + token * z_row + (start + place) * z_column, mask=inside, other=-float("inf")
        )
        z = z.to(tl.float32)
        z_top = tl.maximum(z_max, tl.max(z, 0))
        if z_top > z_max:
            z_best = start + tl.min(tl.where(z == z_top, place, BLOCK), 0).to(tl.int32)
        z_sum = z_sum * tl.exp(z_max - z_top) + tl.sum(tl.exp(z - z_top), 0)
        if BOTH:
            r = tl.load(
                reference + token * r_row + (start + place) * r_column,
                mask=inside,
                other=-float("inf"),
            )
            r = r.to(tl.float32)
            r_top = tl.maximum(r_max, tl.max(r, 0))
            if r_top > r_max:
                r_best = start + tl.min(tl.where(r == r_top, place, BLOCK), 0).to(tl.int32)
            shrink = tl.exp(r_max - r_top)
            weight = tl.exp(r - r_top)
            moved = (total + r_sum * ((z_top - z_max) - (r_top - r_max))) * shrink
            total = tl.where(shrink == 0.0, 0.0, moved)  # what is left behind may be infinite
            total += tl.sum(tl.where(weight == 0.0, 0.0, weight * ((r - r_top) - (z - z_top))), 0)
            r_sum = r_sum * shrink + tl.sum(weight, 0)
            r_max = r_top
        z_max = z_top
    target = tl.load(targets + token)
    there = (target >= 0) & (target < VOCABULARY)
    z = tl.load(logits + token * z_row + target * z_column, mask=there, other=0.0).to(tl.float32)
    tl.store(nll + token, tl.where(there, (z_max - z) + tl.log(z_sum), 0.0))
    if BOTH:
        tl.store(kl + token, total / r_sum + (tl.log(z_sum) - tl.log(r_sum)))
        tl.store(agrees + token, z_best == r_best)

"""Gumbel noise on attention logits, drawn by address: a hash of (seed, layer, head, query, key).

Draws have no order and no state. So a draw depends neither on the blocks in which scores are
computed nor on the batch, padding or slot of a token, a kernel makes it where it needs it, and its
bits are the same on every device. Counters are hashed by SplitMix64 (Steele, Lea and Flood, OOPSLA
2014), with one stream for each query.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from ...errors import UserError
from ..launch import jit, tl

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
# What happens to logits, as kernels name it.
PLAIN, TEMPERED, NOISY = range(3)


@dataclass(frozen=True)
class Perturbation:
    """Perturbed logits `(x + zeta) / tau`, with noise zeta from Gumbel(0, 1) and a temperature tau.

    Attributes:
        temperature: float32 `[batch or 1]`, above 0.
        queries: int64 `[batch or 1, queries]`, the positions that draws are addressed by.
        stream: the stream of a seed and a layer, from `stream_of`; None for zeta = 0.
    """

    temperature: torch.Tensor
    queries: torch.Tensor
    stream: int | None = None

    def of(
        self, logits: torch.Tensor, keys: torch.Tensor, block: slice = slice(None)
    ) -> torch.Tensor:
        """Perturbed logits, of the same shape.

        Args:
            logits: `[batch, kv heads, group, queries, keys]`.
            keys: positions of the keys, int64 `[batch or 1, kv heads or 1, keys]`.
            block: the queries among all of the perturbation.
        """
        if self.stream is not None:
            heads = torch.arange(logits.shape[1] * logits.shape[2], device=logits.device)
            heads = heads.view(*logits.shape[1:3], 1, 1)
            queries = self.queries[:, None, None, block, None]
            logits = logits + gumbel(self.stream, heads, queries, keys[:, :, None, None])
        return logits / self.temperature[:, None, None, None, None]

    def check(self, batch: int, queries: int, device: torch.device) -> None:
        """Raise a `UserError` unless it fits logits of so many rows and queries."""
        rows = sorted({1, batch})
        for name, tensor, dtype, shapes in (
            ("temperature", self.temperature, torch.float32, [[n] for n in rows]),
            ("queries", self.queries, torch.int64, [[n, queries] for n in rows]),
        ):
            shape = list(tensor.shape)
            if tensor.dtype != dtype or shape not in shapes or tensor.device != device:
                fitting = " or ".join(map(str, shapes))
                raise UserError(
                    f"{name} of the perturbation: {tensor.dtype} {shape} on {tensor.device}; the "
                    f"logits need {dtype} {fitting} on {device}"
                )


def as_arguments(perturbation: Perturbation | None, batch: int, unread: torch.Tensor) -> tuple:
    """A perturbation as kernels take it.

    Args:
        perturbation: the perturbation; None for plain logits.
        batch: number of rows.
        unread: a tensor that stands for those that the form does not read.

    Returns:
        The form, temperatures `[batch]`, positions of queries `[batch, queries]`, one row after the
        other, and the stream.
    """
    if perturbation is None:
        return PLAIN, unread, unread, 0
    temperatures = perturbation.temperature.expand(batch).contiguous()
    if perturbation.stream is None:
        return TEMPERED, temperatures, unread, 0
    queries = perturbation.queries.expand(batch, -1).contiguous()
    return NOISY, temperatures, queries, perturbation.stream


@cache
def stream_of(seed: int, layer: int) -> int:
    """The stream of all draws of one seed, modulo 2^63, and layer: a signed integer of 64 bits."""
    mixed = _mix(torch.tensor(seed % (1 << 63)))
    return _mix(mixed + layer).item()


def uniform(
    stream: int, heads: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """Uniform float32 in (0, 1), of the broadcast shape of int64 `heads`, `queries` and `keys`."""
    row = _mix(_mix(heads + stream) + queries)
    bits = _mix(row + (keys + 1) * _GOLDEN)
    return _shift(bits, 41).to(torch.float32).add_(0.5).mul_(2.0**-23)


def gumbel(
    stream: int, heads: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """Draws from Gumbel(0, 1), addressed like `uniform`."""
    return uniform(stream, heads, queries, keys).log_().neg_().log_().neg_()


def _mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser, in place; products wrap."""
    x.bitwise_xor_(_shift(x, 30)).mul_(_FIRST)
    x.bitwise_xor_(_shift(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shift(x, 31))


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical right shift."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


@jit
def _mixed(x):
    """`_mix` for uint64."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@jit
def row_stream(stream, head, queries):
    """The stream of heads and int64 positions of queries, uint64 of their broadcast shape."""
    # The zeros widen a small stream to 64 bits, too.
    of_head = _mixed((queries * 0 + stream + head).to(tl.uint64))
    return _mixed(of_head + queries.to(tl.uint64))


@jit
def gumbel_log2(rows, keys):
    """Draws `-log2(-log2 u)` for rows from `row_stream` and int64 positions of keys.

    They are in units of log2 and less a constant, which a softmax does not see.
    """
    bits = _mixed(rows + (keys + 1).to(tl.uint64) * 0x9E3779B97F4A7C15)
    u = ((bits >> 41).to(tl.int32).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return -tl.log2(-tl.log2(u))

"""Random numbers by address: a hash of (seed, layer, head, query, key), in no order and with no state.

So a draw depends neither on the blocks in which scores are computed nor on the batch, padding or slot of a token, and a
replay is exact on every device. Counters hashed by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), a stream a query.
"""

import torch

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


def uniform(seed: int, layer: int, heads: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Float32 in (0, 1), of the broadcast shape of `heads`, `queries` and `keys`, all int64."""
    row = _mix(torch.full_like(heads, seed))
    row = _mix(_mix(_mix(row + layer) + heads) + queries)
    bits = _mix(row + (keys + 1) * _GOLDEN)
    return _shift(bits, 41).to(torch.float32).add_(0.5).mul_(2.0**-23)


def gumbel(seed: int, layer: int, heads: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Draws from Gumbel(0, 1), addressed like `uniform`."""
    return uniform(seed, layer, heads, queries, keys).log_().neg_().log_().neg_()


def _mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser, in place; products wrap."""
    x.bitwise_xor_(_shift(x, 30)).mul_(_FIRST)
    x.bitwise_xor_(_shift(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shift(x, 31))


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical right shift."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)

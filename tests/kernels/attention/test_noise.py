"""Noise by address: SplitMix64's numbers, Gumbel's distribution, independence, and the same draws
in a kernel."""

from __future__ import annotations

import math

import pytest
import torch
from tests.kernels.compiling import DEVICE, needs_triton

from prunebook.kernels.attention.noise import (
    Perturbation,
    gumbel,
    gumbel_log2,
    row_stream,
    stream_of,
    uniform,
)
from prunebook.kernels.launch import jit, tl


def mixed(x):
    """SplitMix64's finaliser of Python's integers."""
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2**64
    return x ^ x >> 31


def test_numbers_are_those_of_splitmix64():
    """A stream's first outputs for the state 1234567, as Vigna's reference code has them, and an
    address by hand."""
    outputs = [mixed((1234567 + (i + 1) * 0x9E3779B97F4A7C15) % 2**64) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    row = mixed((mixed((mixed((mixed(7) + 2) % 2**64) + 5) % 2**64) + 90) % 2**64)
    bits = mixed((row + 41 * 0x9E3779B97F4A7C15) % 2**64) >> 41
    found = uniform(stream_of(7, 2), torch.tensor(5), torch.tensor(90), torch.tensor(40))
    assert found.item() == (bits + 0.5) / 2**23


def test_noise_is_gumbel_s():
    address = torch.arange(4).view(4, 1, 1), torch.arange(500)[:, None], torch.arange(500)
    draws = gumbel(stream_of(0, 3), *address).double()
    assert draws.mean().item() == pytest.approx(0.5772, abs=5e-3)
    assert draws.std().item() == pytest.approx(1.2825, abs=5e-3)
    assert draws.isfinite().all()


def test_draws_are_uniform_and_independent_of_their_neighbours():
    address = torch.arange(8).view(8, 1, 1), torch.arange(300)[:, None], torch.arange(300)
    draws = torch.stack(
        [uniform(stream_of(seed, layer), *address) for seed in (0, 1) for layer in (0, 1)]
    ).double()
    counts = torch.histc(draws, 10, 0, 1) / draws.numel()
    torch.testing.assert_close(counts, torch.full_like(counts, 0.1), atol=1e-3, rtol=0)
    centred = draws.view(2, 2, 8, 300, 300) - 0.5
    for dim in range(5):  # seed, layer, head, query, key
        pairs = centred.narrow(dim, 1, centred.shape[dim] - 1) * centred.narrow(
            dim, 0, centred.shape[dim] - 1
        )
        assert abs(pairs.mean().item() * 12) < 5e-3  # correlation; its sd is at most 0.0012
    assert draws.min() > 0
    assert draws.max() < 1


def test_draws_do_not_depend_on_what_is_drawn_with_them():
    heads = torch.arange(3).view(3, 1, 1)
    queries = torch.arange(9)[:, None]
    keys = torch.arange(9)
    whole = gumbel(stream_of(5, 1), heads, queries, keys)
    assert torch.equal(
        gumbel(stream_of(5, 1), heads[2:], queries[4:6], keys[3:7]), whole[2:, 4:6, 3:7]
    )
    assert torch.equal(gumbel(stream_of(5, 1), heads, queries, keys[[8, 0]]), whole[..., [8, 0]])


def test_a_seed_of_any_size():
    assert len({stream_of(seed, 0) for seed in (0, 1, 2**40, 2**63 - 1)}) == 4
    assert stream_of(2**63 + 1, 3) == stream_of(1, 3)


def test_logits_are_perturbed_by_the_draws_of_their_addresses():
    """Query heads are counted through the groups; padding has the position -1 like any other."""
    logits = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    queries = torch.tensor([[3, 4, 5, 6], [-1, 0, 1, 2]])
    keys = torch.tensor([[[0, 1, 2, 3, 4]], [[-1, 0, 9, 1, 2]]])
    stream = stream_of(1, 6)
    tau = torch.tensor([2.0, 0.5])
    found = Perturbation(tau, queries, stream).of(logits, keys)
    for row in range(2):
        for head in range(6):
            draws = gumbel(stream, torch.tensor(head), queries[row, :, None], keys[row])
            wanted = (logits[row].flatten(0, 1)[head] + draws) / tau[row]
            assert torch.equal(found[row].flatten(0, 1)[head], wanted)
    some = Perturbation(tau, queries, stream).of(logits[..., 1:3, :], keys, slice(1, 3))
    assert torch.equal(some, found[..., 1:3, :])
    assert torch.equal(Perturbation(tau, queries).of(logits, keys)[0], logits[0] / 2)


@jit
def _draws_kernel(out, queries, stream, head, COUNT: tl.constexpr, KEYS: tl.constexpr):
    row = tl.arange(0, COUNT)
    key = tl.arange(0, KEYS)
    rows = row_stream(stream, head, tl.load(queries + row))
    tl.store(
        out + row[:, None] * KEYS + key[None, :],
        gumbel_log2(rows[:, None], key.to(tl.int64)[None, :]),
    )


@needs_triton
def test_a_kernel_draws_the_same():
    """The largest draws, too, which decide most."""
    queries = torch.randint(1 << 20, (32,), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    keys = torch.arange(4096, device=DEVICE)
    for seed, layer, head in ((0, 0, 0), (1, 31, 5), (2**40, 7, 40)):
        stream = stream_of(seed, layer)
        out = torch.empty(32, 4096, device=DEVICE)
        _draws_kernel[(1,)](out, queries, stream, head, COUNT=32, KEYS=4096)
        wanted = gumbel(stream, torch.tensor(head, device=DEVICE), queries[:, None], keys)
        assert wanted.max() > 10
        found = out.double() * math.log(2) - math.log(math.log(2))
        torch.testing.assert_close(found, wanted.double(), rtol=1e-6, atol=1e-6)

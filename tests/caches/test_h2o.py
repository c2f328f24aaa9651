"""H2O's score: age alone by hand, the sum, the mean, and the two ways in which they part."""

import math

import pytest
import torch

from prunebook.caches import H2OCache
from prunebook.errors import UserError
from prunebook.kernels.attention.mass import attention_mass


def drive(cache, logits, n):
    """Kept positions after the prompt and after each token, for one head whose query t has
    `logits[t]` on the keys.

    Keys are unit vectors, so that a query's entries are its logits.
    """
    layer = cache.layer_class_to_replicate()
    size = len(logits)
    keys = torch.eye(size, dtype=torch.float64)[None, None]
    query = logits.double()[None, None]
    ones = torch.ones(1, size, dtype=torch.bool)
    layer.read_prompt(query[:, :, :n], keys[:, :, :n], keys[:, :, :n], ones[:, :n], 1.0, 0)
    kept = [sorted(j for j in layer.positions.flatten().tolist() if j >= 0)]
    for t in range(n, size):
        now = (slice(None), slice(None), slice(t, t + 1))
        layer.decode(query[now], keys[now], keys[now], ones[:, t : t + 1], 1.0)
        kept.append(sorted(j for j in layer.positions.flatten().tolist() if j >= 0))
    return kept


def test_uniform_attention_gives_harmonic_numbers():
    n = 1000
    flat = torch.zeros(1, 1, n, 2)
    sums = attention_mass(flat, flat, torch.arange(n)[None], 1.0)[0, 0]
    assert [round(sums[j - 1].item(), 2) for j in (1, 10, 100, 900)] == [7.49, 4.66, 2.31, 0.11]
    harmonic = torch.tensor([1 / t for t in range(1, n + 1)], dtype=torch.float64)
    torch.testing.assert_close(
        sums.double(), harmonic.flip(0).cumsum(0).flip(0), rtol=1e-5, atol=1e-6
    )


def test_the_sum_prefers_the_old_and_the_mean_the_attended():
    # Token 3 gets 1/4 of its own query and three quarters of the two after it; token 0 gets 1, 1/2,
    # 1/3, 1/4 and less.
    logits = torch.zeros(6, 6)
    logits[4, 3] = logits[5, 3] = math.log(12)  # 12 of 16 and of 17
    query = logits[None, None]
    keys = torch.eye(6)[None, None]
    positions = torch.arange(6)[None]
    sums = attention_mass(query, keys, positions, 1.0)
    expected = [
        1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 16 + 1 / 17,
        1 / 2 + 1 / 3 + 1 / 4 + 1 / 16 + 1 / 17,
    ]
    torch.testing.assert_close(sums[0, 0, :2], torch.tensor(expected))
    assert drive(H2OCache(2, recent=1), logits, 6) == [[0, 5]]  # 2.2 against 1.7
    assert drive(H2OCache(2, recent=1, average=True), logits, 6) == [[3, 5]]  # 0.37 against 0.57


def test_the_mean_of_a_token_falls_as_it_is_seen_and_passed_over():
    logits = torch.zeros(9, 9)
    logits[1:4, 1] = 1.0  # token 1 is attended to in the prompt alone
    logits[4:, 3] = 3.0
    by_sum = drive(H2OCache(2, recent=1), logits, 4)
    by_mean = drive(H2OCache(2, recent=1, average=True), logits, 4)
    assert by_sum == [[1, 3], [1, 4], [1, 5], [1, 6], [1, 7], [1, 8]]
    assert by_mean[0] == [1, 3]
    # A key-by-key account of the rule: (sum, queries) of what is held.
    held = {1: [sum(math.e / (math.e + t) for t in (1, 2, 3)), 3], 3: [1 / (3 + math.e), 1]}
    expected = []
    for t in range(4, 9):
        held[t] = [0.0, 0]
        total = sum(math.exp(logits[t, j]) for j in held)
        for j, account in held.items():
            account[0] += math.exp(logits[t, j]) / total
            account[1] += 1
        del held[min((j for j in held if j < t), key=lambda j: held[j][0] / held[j][1])]
        expected.append(sorted(held))
    assert by_mean[1:] == expected
    assert by_mean != by_sum


def test_average_is_a_flag():
    with pytest.raises(UserError, match="average 1 is not allowed; use True or False"):
        H2OCache(0.2, average=1)

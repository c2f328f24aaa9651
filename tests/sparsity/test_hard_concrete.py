"""The hard-concrete distribution: closed forms against values by hand and against samples,
gradients, exact counts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunebook.sparsity import hard_concrete as hc

FINE = [-4.605, -1.5, 0.0, 0.7, 4.605]


def test_chances_of_zero_by_hand():
    """sigma(2/3 log(1/11) - log_alpha) = 1 / (1 + 11^(2/3) e^log_alpha)."""
    found = hc.probability_of_zero(torch.tensor([4.605, 0.0, -4.605]))
    torch.testing.assert_close(found, torch.tensor([0.0020, 0.168, 0.953]), atol=5e-4, rtol=0)
    by_hand = [1 / (1 + 11 ** (2 / 3) * math.exp(x)) for x in (4.605, 0.0, -4.605)]
    torch.testing.assert_close(found, torch.tensor(by_hand))


def test_both_ends_mirror_each_other():
    x = torch.tensor(FINE)
    torch.testing.assert_close(hc.probability_of_one(x), hc.probability_of_zero(-x))


@pytest.mark.parametrize("beta", [2 / 3, 0.83])
def test_samples_have_the_chances_of_the_closed_forms(beta):
    n = 100_000
    x = torch.tensor(FINE)
    z = hc.sample(x.expand(n, -1), torch.Generator().manual_seed(0), beta)
    assert z.min() == 0
    assert z.max() == 1
    for measured, chance in (
        ((z == 0), hc.probability_of_zero(x, beta)),
        ((z == 1), hc.probability_of_one(x, beta)),
    ):
        error = (measured.float().mean(0) - chance).abs()
        assert (error < 4 * (chance * (1 - chance) / n).sqrt() + 1e-5).all()


def test_expected_size_and_its_gradient():
    x = torch.tensor([FINE, FINE[::-1]], requires_grad=True)
    size = hc.expected_size(x)
    torch.testing.assert_close(size, (1 - hc.probability_of_zero(x)).sum(1))
    size.sum().backward()
    p = hc.probability_of_zero(x.detach())
    torch.testing.assert_close(x.grad, p * (1 - p))  # d(1 - sigma(c - x)) / dx


def test_a_sample_follows_its_seed_and_moves_up_with_log_alpha():
    x = torch.zeros(1000)
    first, again, other = (hc.sample(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (hc.sample(x + 1, torch.Generator().manual_seed(0)) >= first).all()


def test_without_noise_survivors_are_soft():
    assert hc.without_noise(torch.tensor(hc.LIMIT)).item() == pytest.approx(0.996, abs=5e-4)
    assert hc.without_noise(torch.tensor(0.0)).item() == 0.5


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(0, 6),
)
def test_exactly_so_many_of_each_row_stay_the_highest(rows, count):
    x = torch.tensor(rows, dtype=torch.float32)
    kept = hc.keep(x, count)
    assert (kept.sum(1) == count).all()
    for row, mask in zip(rows, kept.tolist(), strict=True):
        # of equal ones the lowest index goes first
        order = sorted(range(6), key=lambda i: (row[i], i))
        assert sorted(order[6 - count :]) == [i for i in range(6) if mask[i]]

"""Masks by rank, and their gradient against the explicit construction."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.besa.explicit import FIVE, explicit_probability

from prunebook.methods.besa.learned_sparsity import candidate_rates
from prunebook.methods.besa.masked_weight import MaskedWeight, intervals, ranks_of


def test_ranks_by_hand_ties_by_column():
    assert ranks_of(torch.tensor([[3.0, 1, 2], [5, 5, 1]])).tolist() == [[2, 0, 1], [1, 2, 0]]
    assert ranks_of(torch.zeros(1, 5)).tolist() == [[0, 1, 2, 3, 4]]
    assert ranks_of(torch.zeros(1, 2**15)).max() == 2**15 - 1


def test_intervals_by_hand():
    assert intervals(4, FIVE).tolist() == [4, 3, 2, 1]
    assert intervals(3, FIVE).tolist() == [3, 2, 1]  # floor(3 p) = 3, 2, 1, 0, 0
    # 0.29 of 100 is 29
    assert intervals(100, candidate_rates()).tolist() == list(range(100, 0, -1))


def test_one_matrix_by_hand():
    ranks = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=torch.int16)
    beta = torch.tensor([[0.2] * 5, [0.1, 0.2, 0.3, 0.4, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    k = torch.tensor([[2], [1]], dtype=torch.int16)
    masked = MaskedWeight.apply(beta, weight, ranks, intervals(4, FIVE)[ranks.int()], k)
    assert masked.tolist() == [[0, 0, 3, 4], [5, 6, 7, 0]]
    masked.sum().backward()  # minus the sums of the 4, 3, 2, 1, 0 lowest ranks
    assert beta.grad.tolist() == [[-10, -6, -3, -1, 0], [-26, -21, -15, -8, 0]]


@settings(deadline=None)  # the first call of autograd is slow
@given(
    st.integers(1, 4),
    st.integers(1, 130),
    st.integers(0, 5),
    st.sampled_from([FIVE, candidate_rates()]),
)
def test_the_gradient_is_that_of_the_explicit_construction(rows, width, seed, candidates):
    generator = torch.Generator().manual_seed(seed)
    weight, upstream = torch.randn(2, rows, width, generator=generator).double()
    ranks = ranks_of(torch.rand(rows, width, generator=generator))
    beta = (
        torch.rand(rows, len(candidates), generator=generator).double().softmax(-1).requires_grad_()
    )
    k = (beta.detach() @ candidates.double() * width).floor().to(ranks.dtype)[:, None]
    hard = (ranks >= k).double()
    q = 1 - explicit_probability(beta, ranks, candidates)
    straight_through = hard - q.detach() + q
    (want,) = torch.autograd.grad((weight * straight_through * upstream).sum(), beta)
    ours = MaskedWeight.apply(
        beta, weight.float(), ranks, intervals(width, candidates)[ranks.int()], k
    )
    assert torch.equal(ours.double(), weight.float().double() * hard)
    (got,) = torch.autograd.grad((ours * upstream).sum(), beta)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 150))
def test_the_probability_falls_with_the_rank_and_ends_at_the_coefficient_of_one(seed, width):
    beta = torch.rand(101, generator=torch.Generator().manual_seed(seed)).double().softmax(0)
    cumulative = torch.cat([beta.new_zeros(1), beta.cumsum(0)])
    # P by rank, as the intervals give it
    probability = cumulative[intervals(width, candidate_rates()).int()]
    ranks = torch.arange(width)[None]
    torch.testing.assert_close(
        probability, explicit_probability(beta[None], ranks, candidate_rates())[0]
    )
    assert (probability.diff() <= 1e-12).all()
    assert probability[-1] == beta[0]
    if width == 100:
        assert probability.mean().item() == pytest.approx((beta * candidate_rates()).sum().item())


def test_the_mean_probability_is_the_rate_where_counts_are_whole():
    beta = torch.rand(101, generator=torch.Generator().manual_seed(0)).double().softmax(0)
    for width in (100, 300):
        probability = explicit_probability(beta[None], torch.arange(width)[None], candidate_rates())
        assert probability.mean().item() == pytest.approx(
            (beta * candidate_rates()).sum().item(), abs=1e-7
        )

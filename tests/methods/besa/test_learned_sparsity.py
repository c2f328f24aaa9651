"""Masks by rank with their gradient, and learned rates with their bounds and counts."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.besa.explicit import FIVE, explicit_probability

from prunebook.errors import UserError
from prunebook.methods.besa.candidates import candidate_rates, reachable
from prunebook.methods.besa.learned_sparsity import (
    LearnedRates,
    MaskedWeight,
    candidates_beyond,
    counts_from_rates,
    ranks_of,
)
from prunebook.sparsity.patterns import Unstructured, keep_mask


def make(shapes=((6, 20), (4, 12)), granularity="row", sigmoid=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = {f"w{i}": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}
    scores = {name: weight.abs() for name, weight in weights.items()}
    return LearnedRates(scores, weights, granularity, sigmoid)


def test_ranks_by_hand_ties_by_column():
    assert ranks_of(torch.tensor([[3.0, 1, 2], [5, 5, 1]])).tolist() == [[2, 0, 1], [1, 2, 0]]
    assert ranks_of(torch.zeros(1, 5)).tolist() == [[0, 1, 2, 3, 4]]
    assert ranks_of(torch.zeros(1, 2**15)).max() == 2**15 - 1


def test_candidates_beyond_by_hand():
    assert candidates_beyond(4, FIVE).tolist() == [4, 3, 2, 1]
    assert candidates_beyond(3, FIVE).tolist() == [3, 2, 1]  # floor(3 p) = 3, 2, 1, 0, 0
    # 0.29 of 100 is 29
    assert candidates_beyond(100, candidate_rates()).tolist() == list(range(100, 0, -1))


def test_one_matrix_by_hand():
    ranks = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=torch.int16)
    beta = torch.tensor([[0.2] * 5, [0.1, 0.2, 0.3, 0.4, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    k = torch.tensor([[2], [1]], dtype=torch.int16)
    masked = MaskedWeight.apply(beta, weight, ranks, candidates_beyond(4, FIVE)[ranks.int()], k)
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
        beta, weight.float(), ranks, candidates_beyond(width, candidates)[ranks.int()], k
    )
    assert torch.equal(ours.double(), weight.float().double() * hard)
    (got,) = torch.autograd.grad((ours * upstream).sum(), beta)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 150))
def test_the_probability_falls_with_the_rank_and_ends_at_the_coefficient_of_one(seed, width):
    beta = torch.rand(101, generator=torch.Generator().manual_seed(seed)).double().softmax(0)
    cumulative = torch.cat([beta.new_zeros(1), beta.cumsum(0)])
    # P by rank, as the numbers of candidates give it
    probability = cumulative[candidates_beyond(width, candidate_rates()).int()]
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


def test_the_gradient_by_finite_differences():
    """Of a linear toy loss with `1 - P` in place of the mask, whose gradient the mask takes
    over."""
    learned = make(((3, 40),))
    learned.theta.data.normal_(0, 2, generator=torch.Generator().manual_seed(1))
    weight = learned.weights["w0"].double()
    upstream = torch.randn(3, 40, generator=torch.Generator().manual_seed(2))

    def loss(theta):
        q = 1 - explicit_probability(
            theta.sigmoid().softmax(-1), learned.ranks["w0"], learned.candidates
        )
        return (weight * q * upstream).sum()

    masked, _ = learned.masked()
    (got,) = torch.autograd.grad((masked["w0"] * upstream).sum(), learned.theta)
    theta = learned.theta.detach().double()
    for row, column in ((0, 0), (0, 60), (1, 100), (2, 33)):
        step = torch.zeros_like(theta)
        step[row, column] = 1e-4
        slope = (loss(theta + step) - loss(theta - step)) / 2e-4
        assert got[row, column].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)


def test_the_gradient_of_a_layer_is_the_sum_over_its_rows():
    upstream = torch.randn(6, 20, generator=torch.Generator().manual_seed(3))
    gradients = {}
    for granularity in ("row", "layer"):
        learned = make(granularity=granularity)
        masked, _ = learned.masked()
        (gradients[granularity],) = torch.autograd.grad(
            (masked["w0"] * upstream).sum(), learned.theta
        )
    assert gradients["layer"].shape == (2, 101)
    torch.testing.assert_close(gradients["layer"][0], gradients["row"][:6].sum(0))
    assert (gradients["layer"][1] == 0).all()


@pytest.mark.parametrize("granularity", ["row", "layer"])
@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("width", [8, 576, 1536, 11008])
def test_at_the_start_half_of_every_row_goes_by_wandas_rule(granularity, sigmoid, width):
    learned = make(((3, width), (2, width)), granularity, sigmoid)
    masked, mean = learned.masked()
    assert mean.item() == pytest.approx(0.5, abs=1e-6)
    for name, weight in learned.weights.items():
        keep = keep_mask(weight.abs(), Unstructured(0.5))
        assert torch.equal(masked[name] != 0, keep)
        assert torch.equal(masked[name][keep], weight[keep])
    for counts in (learned.counts(), learned.counts(5 * width // 2)):
        assert all((count == width // 2).all() for count in counts.values())


def test_a_rate_that_rounding_left_below_one_half_still_counts_as_one_half():
    rows = make(((2, 576),), "row")
    matrix = make(((2, 576),), "layer")
    assert [c.tolist() for c in rows.counts_at(torch.tensor([0.49999997, 0.4999]))] == [[288, 287]]
    assert [c.tolist() for c in matrix.counts_at(torch.tensor([0.49999997]))] == [[288]]


def test_the_sigmoid_bounds_the_rates():
    low, high = reachable(candidate_rates())
    assert (low, high) == pytest.approx((0.3763, 0.6237), abs=1e-4)
    learned = make(((40, 100),))
    learned.theta.data.normal_(0, 50, generator=torch.Generator().manual_seed(0))
    learned.theta.data[0] = torch.where(candidate_rates() > high, 50.0, -50.0)
    rates = learned.rates()["w0"]
    assert rates.min() > low
    assert rates.max() == pytest.approx(high, abs=1e-5)


def test_without_the_sigmoid_every_rate_can_be_had():
    learned = make(((3, 100),), sigmoid=False)
    learned.theta.data[0, 0], learned.theta.data[1, 100], learned.theta.data[2, 30] = 50, 50, 50
    assert learned.rates()["w0"].tolist() == pytest.approx([1, 0, 0.7], abs=1e-6)
    assert learned.counts()["w0"].tolist() == [100, 0, 70]


def test_the_mean_rate_is_weighted_by_size():
    for granularity in ("row", "layer"):
        learned = make(((6, 20), (4, 12)), granularity, sigmoid=False)
        learned.theta.data[: 6 if granularity == "row" else 1, 20] = (
            50  # 0.8 of 120 weights, 1/2 of 48
        )
        _, mean = learned.masked()
        assert mean.item() == pytest.approx((120 * 0.8 + 48 * 0.5) / 168)


@pytest.mark.parametrize("granularity", ["row", "layer"])
def test_counts_meet_their_sum_and_the_baked_zeros_are_the_lowest_ranks(granularity):
    learned = make(granularity=granularity, sigmoid=False)
    learned.theta.data.normal_(0, 3, generator=torch.Generator().manual_seed(4))
    rates = learned.rates()
    before = {name: weight.clone() for name, weight in learned.weights.items()}
    counts = learned.counts(83)
    assert sum(int(count.sum()) for count in counts.values()) == 83
    for name, count in counts.items():
        exact = rates[name].double() * before[name].shape[1]
        shift = count - exact
        assert shift.max() - shift.min() < 2  # one shift of the rate for all, then rounding
    learned.apply(counts)
    for name, count in counts.items():
        zeros = learned.weights[name] == 0
        assert torch.equal(zeros.sum(1), count)
        assert torch.equal(zeros, learned.ranks[name] < count[:, None])
        assert torch.equal(learned.weights[name], before[name] * ~zeros)


def test_narrow_weights_keep_their_dtype_and_have_a_gradient():
    weights = {"w": torch.randn(4, 20, generator=torch.Generator().manual_seed(0)).bfloat16()}
    learned = LearnedRates({"w": weights["w"].float().abs()}, weights, "row", True)
    masked, _ = learned.masked()
    assert masked["w"].dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(masked["w"].float().sum(), learned.theta)
    assert gradient.dtype == torch.float32
    assert gradient.abs().max() > 0


def test_counts_from_rates_by_hand():
    # 0.25 of 8 and 0.75 of 4 are 2 and 3; two more of twelve shift both rates by a sixth.
    assert counts_from_rates([0.25, 0.75], [8, 4], 5).tolist() == [2, 3]
    assert counts_from_rates([0.25, 0.75], [8, 4], 7).tolist() == [3, 4]
    assert counts_from_rates([0.25, 0.75], [8, 4], 0).tolist() == [0, 0]
    assert counts_from_rates([0.25, 0.75], [8, 4], 12).tolist() == [8, 4]
    # sixths add up to less than 1
    assert counts_from_rates([0, 0, 0, 0], [1, 1, 3, 1], 6).tolist() == [1, 1, 3, 1]
    with pytest.raises(UserError, match="removed 13 is not allowed for 12 weights"):
        counts_from_rates([0.25, 0.75], [8, 4], 13)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40)), min_size=1, max_size=30),
    st.floats(0, 1),
)
def test_counts_from_rates_meet_the_sum_in_the_order_of_the_rates(groups, fraction):
    rates, sizes = zip(*groups, strict=True)
    removed = int(fraction * sum(sizes))
    counts = counts_from_rates(rates, sizes, removed)
    assert counts.sum() == removed
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    near = sorted(zip(rates, counts / np.array(sizes), 1 / np.array(sizes), strict=True))
    assert all(
        a <= b + step_a + step_b for (_, a, step_a), (_, b, step_b) in itertools.pairwise(near)
    )

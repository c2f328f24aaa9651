"""Channel orders: the heuristic by hand, the assignment beside brute force, Phi never falling."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from prunebook.errors import UserError
from prunebook.methods.ria.permutation import (
    allocate_channels,
    assign_channels,
    best_order,
    keep_mask_permuted,
    retained,
)
from prunebook.sparsity.patterns import NofM, keep_mask


def scores_of(seed, rows=3, columns=8):
    return torch.rand(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def test_allocation_deals_like_a_snake():
    # Ascending 10, 20, .., 80; chunks (0 1) (2 3) (4 5) (6 7) by rank, every second one reversed.
    importance = torch.tensor([10.0, 20, 30, 40, 50, 60, 70, 80])
    assert allocate_channels(importance, 4).tolist() == [0, 3, 4, 7, 1, 2, 5, 6]
    assert allocate_channels(importance.flip(0), 4).tolist() == [7, 4, 3, 0, 6, 5, 2, 1]
    # ties stand lowest index first
    assert allocate_channels(torch.ones(4), 2).tolist() == [0, 3, 1, 2]


def test_retained_by_hand():
    scores = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]])
    assert retained(scores, torch.arange(4), NofM(1, 2)) == 2 + 4 + 4 + 2
    assert retained(scores, torch.tensor([0, 3, 1, 2]), NofM(1, 2)) == 4 + 3 + 4 + 3


@pytest.mark.parametrize("pattern", [NofM(2, 4), NofM(1, 4), NofM(3, 4), NofM(4, 8)], ids=str)
def test_the_closed_form_chooses_what_the_retained_scores_choose(pattern):
    scores = scores_of(1, rows=6, columns=3 * pattern.m)
    order = torch.arange(3 * pattern.m)
    # the direct costs: what group j retains with candidate i in the slot
    for slot in range(pattern.m):
        groups = order.view(-1, pattern.m)
        gain = torch.zeros(3, 3, dtype=torch.float64)
        for j, i in itertools.product(range(3), range(3)):
            columns = groups[j].clone()
            columns[slot] = groups[i, slot]
            gain[j, i] = retained(scores[:, columns], torch.arange(pattern.m), pattern)
        groups[:, slot] = groups[
            torch.from_numpy(linear_sum_assignment(gain, maximize=True)[1]), slot
        ]
    assert torch.equal(assign_channels([scores], torch.arange(3 * pattern.m), pattern), order)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([NofM(2, 4), NofM(1, 4), NofM(1, 2)]))
def test_the_order_is_a_permutation_and_the_assignment_never_loses(seed, pattern):
    scores = scores_of(seed, columns=16)
    start = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    improved = assign_channels([scores], start, pattern)
    assert improved.sort().values.tolist() == list(range(16))
    assert retained(scores, improved, pattern) >= retained(scores, start, pattern) - 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_between_the_heuristic_and_the_optimum(seed):
    scores = scores_of(seed)
    pattern = NofM(2, 4)
    best = max(
        retained(scores, torch.tensor([*first, *(c for c in range(8) if c not in first)]), pattern)
        for first in itertools.combinations(range(8), 4)
    )
    heuristic = retained(scores, allocate_channels(scores.sum(0), 4), pattern)
    assert (
        heuristic - 1e-12
        <= retained(scores, best_order([scores], pattern), pattern)
        <= best + 1e-12
    )


def test_matrices_that_share_inputs_count_as_one_stacked():
    first = scores_of(0, columns=16)
    second = scores_of(1, rows=9, columns=16)
    together = best_order([first, second], NofM(2, 4))
    assert torch.equal(together, best_order([torch.cat([first, second])], NofM(2, 4)))


def test_the_mask_holds_in_the_permuted_order_and_keeps_more():
    scores = scores_of(3, rows=5, columns=32)
    pattern = NofM(2, 4)
    keep = keep_mask_permuted(scores, pattern)
    order = best_order([scores], pattern)
    assert (keep[:, order].view(5, -1, 4).sum(2) == 2).all()
    assert scores[keep].sum() > scores[keep_mask(scores, pattern)].sum()


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="has 10 inputs, which pattern 2:4 does not divide"):
        best_order([scores_of(0, columns=10)], NofM(2, 4))

"""Queues by hand: their order, ties, lengths and groups."""

import torch

from prunebook.methods.dsnot.queues import (
    join_rows,
    lowest,
    make_queues,
    partners_in_group,
    pruning_queues,
    regrowing_queues,
)

D = torch.tensor([[1.0, -0.2, -0.9, -0.8, 1.8, -0.4]])
KEEP = torch.tensor([[True, False, False, True, True, False]])


def test_pruned_weights_come_back_by_their_ratio():
    ratio = D / torch.tensor([1.0, 0.1, 1, 1, 1, 1])
    columns, counts = regrowing_queues(ratio, D, KEEP, 3)
    # pruned: -2 in column 1, -0.9 in 2 and -0.4 in 5; none is positive
    assert columns[0].tolist() == [[1, 2, 5]]
    assert counts.tolist() == [[3], [0]]


def test_the_last_of_equal_positive_ratios_comes_back_first():
    equal = torch.tensor([[2.0, 2, -1, 0, -1, 2]])
    columns, counts = regrowing_queues(equal, equal, torch.zeros(1, 6, dtype=torch.bool), 3)
    assert columns[0, :, :2].tolist() == [[2, 4]]
    assert columns[1].tolist() == [[5, 1, 0]]
    assert counts.tolist() == [[2], [3]]  # D = 0 never comes back


def test_kept_weights_of_the_other_sign_go_by_their_score():
    scores = torch.tensor([[5.0, 1, 1, 3, 2, 1]])
    columns, counts = pruning_queues(scores, D, KEEP, 2)
    assert columns[0].tolist() == [[4, 0]]  # D > 0, for e < 0
    assert columns[1, :, :1].tolist() == [[3]]  # D < 0, for e > 0
    assert counts.tolist() == [[2], [1]]


def test_partners_are_of_the_same_group_and_used_once():
    keep = torch.tensor([[False, False, True, True, False, True, True, True]])
    scores = torch.tensor([[0.0, 0, 4, 3, 0, 7, 5, 6]])
    queue = torch.tensor([[1, 4, 0, 3]])
    columns, counts = partners_in_group(torch.stack([queue, queue]), scores, keep, 4)
    # the group of 0 to 3 has two kept weights: for its third entry there is none left
    assert columns[0, :, :3].tolist() == [[3, 6, 2]]
    assert counts.tolist() == [[3], [3]]


def test_lowest_values_are_ascending_and_ties_by_column():
    values = torch.tensor([[3.0, 1, 2, 1], [0, 0, 0, 0]])
    assert lowest(values, 3).tolist() == [[1, 3, 2], [0, 1, 2]]
    assert lowest(values, 0).shape == (2, 0)


def test_queues_of_parts_are_those_of_all_rows():
    generator = torch.Generator().manual_seed(0)
    changes = torch.randn(7, 12, generator=generator)
    keep = torch.rand(7, 12, generator=generator) < 0.5
    scores = torch.rand(7, 12, generator=generator)
    powered_variance = torch.ones(12)
    whole = make_queues(changes, keep, powered_variance, scores, cycles=4)
    parts = [
        make_queues(changes[rows], keep[rows], powered_variance, scores[rows], cycles=4)
        for rows in (slice(0, 3), slice(3, 7))
    ]
    joined = join_rows(parts)
    assert torch.equal(joined.regrown, whole.regrown)
    assert torch.equal(joined.pruned, whole.pruned)
    assert torch.equal(joined.pairs_available, whole.pairs_available)
    assert torch.equal(whole.D_pruned[0], changes.gather(1, whole.pruned[0]))
    assert torch.equal(whole.D_regrown[1], changes.gather(1, whole.regrown[1]))

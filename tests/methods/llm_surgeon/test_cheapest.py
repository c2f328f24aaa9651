"""The cheapest parts, beside a count of the zeros of real masks; the cheapest groups."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.llm_surgeon.cheapest import (
    cheapest_n_of_m,
    cheapest_parts,
    cheapest_rows_columns,
)
from prunebook.sparsity.patterns import NofM, Unstructured


def brute_rows_columns(costs, budget):
    """One structure after the other, counting zeros of real masks."""
    masks = [torch.zeros(len(r), len(c), dtype=torch.bool) for r, c in costs]
    queue = sorted(
        (value, layer, kind, index)
        for layer, pair in enumerate(costs)
        for kind, values in enumerate(pair)
        for index, value in enumerate(values.tolist())
    )
    for _, layer, kind, index in queue:
        before = masks[layer].clone()
        masks[layer].select(kind, index).fill_(True)
        if sum(int(mask.sum()) for mask in masks) > budget:
            masks[layer] = before
            break
    return masks


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [0, 1, 4, 17, 30, 50, 62])
def test_rows_and_columns_are_counted_as_their_zeros(seed, budget):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 8), (5, 6)]
    costs = [
        tuple(torch.randint(12, (n,), generator=generator).float() for n in shape)
        for shape in shapes
    ]  # with many ties
    expected = brute_rows_columns(costs, budget)
    for (rows, columns), mask in zip(cheapest_rows_columns(costs, budget), expected, strict=True):
        assert torch.equal(rows[:, None] | columns, mask)


def test_costs_that_are_nan_are_refused():
    with pytest.raises(UserError, match="NaN"):
        cheapest_rows_columns([(torch.tensor([1.0]), torch.tensor([float("nan")]))], 1)


def test_the_cheapest_groups_of_all_layers_become_n_of_m_first():
    costs = [torch.tensor([[1.0, 2, 9, 9, 5, 5, 5, 5]]), torch.tensor([[0.5, 8, 0.5, 8]])]
    # cost of each group: 3 and 10, and 1; two of the three go
    first, second = cheapest_n_of_m(costs, NofM(2, 4), 2 / 3)
    assert first.tolist() == [[True, True, False, False, False, False, False, False]]
    assert second.tolist() == [[True, False, True, False]]
    first, _ = cheapest_n_of_m(costs, NofM(2, 4), 1.0)
    assert first.view(2, 4).sum(1).tolist() == [2, 2]


def test_entries_of_all_layers_share_one_threshold():
    costs = [torch.tensor([[1.0, 9], [8, 7]]), torch.tensor([[2.0, 3, 4, 5]])]
    first, second = cheapest_parts(costs, Unstructured(0.5, "model"), 1.0)
    assert first.tolist() == [[True, False], [False, False]]
    assert second.tolist() == [[True, True, True, False]]
    first, second = cheapest_parts(costs, Unstructured(0.5, "model"), 0.5)
    assert int(first.sum() + second.sum()) == 2


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_share_of_a_target_becomes_a_budget_of_weights(share):
    costs = [(torch.arange(4.0), torch.arange(8.0)), (torch.arange(5.0), torch.arange(6.0))]
    # 0.5 of 32 + 30 weights
    expected = cheapest_rows_columns(costs, int(31 * share))
    for ours, theirs in zip(
        cheapest_parts(costs, Unstructured(0.5, "model"), share), expected, strict=True
    ):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_groups_are_chosen_for_n_of_m():
    costs = [torch.tensor([[1.0, 2, 9, 9, 5, 5, 5, 5]])]
    ours = cheapest_parts(costs, NofM(2, 4), 0.5)
    assert torch.equal(ours[0], cheapest_n_of_m(costs, NofM(2, 4), 0.5)[0])

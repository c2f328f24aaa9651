"""Costs beside the dense `RC x RC` formulas in float64, and by hand."""

import pytest
import torch
from tests.methods.llm_surgeon.whole_fisher import entries, loss, problem, surgeon

from prunebook.methods.llm_surgeon import removal_costs

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("seed", range(3))
def test_costs_of_single_structures_are_those_of_the_whole_matrix(seed):
    W, G, A, Gi, Ai = problem(seed=seed)
    g = 1 / Gi.diagonal()
    a = 1 / Ai.diagonal()
    for r in range(4):
        expected, _ = surgeon(W, G, A, entries(W.shape, rows=[r]))
        torch.testing.assert_close(removal_costs.row_costs(W, A, g)[r], expected, **EXACT)
        for c in range(6):
            one = torch.zeros(W.shape, dtype=torch.bool)
            one[r, c] = True
            expected, _ = surgeon(W, G, A, one)
            torch.testing.assert_close(
                removal_costs.element_costs(W, g, a)[r, c], expected, **EXACT
            )
    for c in range(6):
        expected, _ = surgeon(W, G, A, entries(W.shape, columns=[c]))
        torch.testing.assert_close(removal_costs.column_costs(W, G, a)[c], expected, **EXACT)


def test_without_compensation_costs_use_the_diagonals_of_the_factors():
    W, G, A, _, _ = problem()
    g = G.diagonal()
    a = A.diagonal()
    removed = entries(W.shape, rows=[2])
    torch.testing.assert_close(
        removal_costs.row_costs(W, A, g)[2], loss(W, W.masked_fill(removed, 0), G, A), **EXACT
    )
    removed = entries(W.shape, columns=[5])
    torch.testing.assert_close(
        removal_costs.column_costs(W, G, a)[5], loss(W, W.masked_fill(removed, 0), G, A), **EXACT
    )
    one = W.clone()
    one[1, 3] = 0
    torch.testing.assert_close(
        removal_costs.element_costs(W, g, a)[1, 3], loss(W, one, G, A), **EXACT
    )


def test_costs_by_hand():
    W = torch.tensor([[2.0, 0], [1, 3]])
    G = torch.tensor([[2.0, 0], [0, 4]])
    A = torch.tensor([[1.0, 0.5], [0.5, 1]])
    g = torch.tensor([2.0, 4])  # [A^-1]_cc = 4/3
    a = torch.tensor([0.75, 0.75])
    assert removal_costs.element_costs(W, g, a).tolist() == [[3.0, 0.0], [1.5, 13.5]]
    assert removal_costs.row_costs(W, A, g).tolist() == [
        4.0,
        26.0,
    ]  # 4 * 2 / 2 and (1 + 9 + 3) * 4 / 2
    assert removal_costs.column_costs(W, G, a).tolist() == [4.5, 13.5]  # (8 + 4) * 3/8 and 36 * 3/8
    assert removal_costs.group_costs(torch.tensor([[4.0, 1, 3, 2, 0, 0, 5, 9]]), 2, 4).tolist() == [
        [3.0, 0.0]
    ]
    assert removal_costs.group_costs(torch.tensor([[4.0, 1, 3, 2]]), 1, 4).tolist() == [[6.0]]

"""Updates of the weights that stay, beside the dense `RC x RC` formulas in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.llm_surgeon.whole_fisher import entries, loss, problem, surgeon

from prunebook.methods.llm_surgeon import fisher, removal, removal_costs

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.integers(0, 4), max_size=4),
    st.sets(st.integers(0, 5), max_size=5),
    st.integers(0, 99),
)
def test_rows_and_columns_together_are_the_joint_optimum(rows, columns, seed):
    W, G, A, Gi, Ai = problem(5, 6, seed)
    removed = entries(W.shape, rows, columns)
    cost, expected = surgeon(W, G, A, removed)
    index = (
        torch.tensor(sorted(rows), dtype=torch.int64),
        torch.tensor(sorted(columns), dtype=torch.int64),
    )
    new = removal.remove_rows_columns(W, Gi, Ai, *index)
    torch.testing.assert_close(new, expected.masked_fill(removed, 0), rtol=1e-7, atol=1e-7)
    assert (new[removed] == 0).all()
    # The loss rises by what was predicted, and no less is possible: claim of exactness on a
    # quadratic loss.
    torch.testing.assert_close(loss(W, new, G, A), cost, rtol=1e-6, atol=1e-9)
    added = removal.remove_rows_columns(W, Gi, Ai, *index, max_correlate=100)
    assert loss(W, added, G, A) >= cost - 1e-9


def test_added_updates_are_worse_than_joint_ones_and_single_ones_still_worse():
    W, G, A, Gi, Ai = problem(8, 9)
    index = torch.tensor([0, 2, 5]), torch.tensor([1, 3, 4])
    joint, added, single = (
        loss(W, removal.remove_rows_columns(W, Gi, Ai, *index, limit), G, A)
        for limit in (None, 3, 1)
    )
    assert joint < added
    assert joint < single


def test_groups_of_rows_add_the_updates_of_each_group():
    W, _, _, Gi, Ai = problem(7, 6)
    rows = torch.tensor([0, 1, 3, 4, 6])
    columns = torch.tensor([1, 2, 5])
    expected = W.clone()
    for group in ([0, 1], [3, 4], [6]):
        expected -= Gi[:, group] @ torch.linalg.inv(Gi[group][:, group]) @ W[group]
    for group in ([1, 2], [5]):
        expected -= W[:, group] @ torch.linalg.inv(Ai[group][:, group]) @ Ai[group]
    expected[rows], expected[:, columns] = 0, 0
    torch.testing.assert_close(
        removal.remove_rows_columns(W, Gi, Ai, rows, columns, 2), expected, **EXACT
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**24 - 1), st.integers(0, 99))
def test_entries_of_one_group_go_at_the_predicted_cost(bits, seed):
    W, G, A, Gi, Ai = problem(4, 6, seed)
    removed = torch.tensor([bool(bits >> i & 1) for i in range(24)]).view(4, 6)
    cost, expected = surgeon(W, G, A, removed)
    new = removal.remove_elements(W, Gi, Ai, removed, 24)
    torch.testing.assert_close(new, expected.masked_fill(removed, 0), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(loss(W, new, G, A), cost, rtol=1e-6, atol=1e-9)
    assert (new[removed] == 0).all()


def test_later_groups_of_entries_see_the_updates_of_earlier_ones():
    W, _, _, Gi, Ai = problem(4, 6)
    removed = torch.rand(4, 6, generator=torch.Generator().manual_seed(5)) < 0.5
    assert removed.sum(1).tolist() == [2, 2, 1, 3]
    expected = W.clone()
    for group in ([0], [1, 2], [3]):  # at most 3 entries
        q = torch.zeros(4, 6, dtype=torch.bool)
        q[group] = removed[group]
        inverse = torch.kron(Gi, Ai)
        solved = torch.linalg.solve(inverse[q.flatten()][:, q.flatten()], expected[q])
        expected -= (inverse[:, q.flatten()] @ solved).view(4, 6)
    expected[removed] = 0
    torch.testing.assert_close(removal.remove_elements(W, Gi, Ai, removed, 3), expected, **EXACT)


@pytest.mark.parametrize(
    ("counts", "limit", "groups"),
    [
        ([3, 3, 1, 4], 4, [(0, 1), (1, 3), (3, 4)]),
        ([9, 1, 1], 4, [(0, 1), (1, 3)]),
        ([0, 0], 1, [(0, 2)]),
        ([1, 1, 1], 1, [(0, 1), (1, 2), (2, 3)]),
        ([2, 0, 2], 4, [(0, 3)]),
    ],
)
def test_groups_are_whole_rows_up_to_the_limit(counts, limit, groups):
    assert removal._row_groups(counts, limit) == groups


def test_without_gradients_one_entry_is_the_step_of_optimal_brain_surgeon():
    W, _, _, _, Ai = problem(1, 6)
    removed = entries(W.shape, columns=[2])
    step = W - W[0, 2] / Ai[2, 2] * Ai[2]
    step[0, 2] = 0
    identity = torch.eye(1, dtype=torch.float64)
    torch.testing.assert_close(removal.remove_elements(W, identity, Ai, removed, 10), step, **EXACT)


def test_without_curvature_it_is_magnitude_pruning():
    W = problem(5, 6)[0]
    G = torch.eye(5, dtype=torch.float64)
    A = torch.eye(6, dtype=torch.float64)
    ones = torch.ones(5, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    assert torch.equal(removal_costs.element_costs(W, *ones), W.square() / 2)
    removed = W.abs() < 0.7
    assert torch.equal(removal.remove_elements(W, G, A, removed, 7), W.masked_fill(removed, 0))
    index = torch.tensor([1]), torch.tensor([0, 4])
    expected = W.masked_fill(entries(W.shape, [1], [0, 4]), 0)
    assert torch.equal(removal.remove_rows_columns(W, G, A, *index), expected)


def test_moving_scale_from_one_factor_to_the_other_changes_nothing():
    W, G, A, _, _ = problem(5, 6)
    removed = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    results = []
    for c in (1.0, 1e4):
        Gi = fisher.damped_inverse(c * G, 0.01).double()
        Ai = fisher.damped_inverse(A / c, 0.01).double()
        g = 1 / Gi.diagonal()
        a = 1 / Ai.diagonal()
        results.append(
            [
                removal_costs.element_costs(W, g, a),
                removal_costs.row_costs(W, A / c, g),
                removal_costs.column_costs(W, c * G, a),
                removal.remove_elements(W, Gi, Ai, removed, 9),
                removal.remove_rows_columns(W, Gi, Ai, torch.tensor([0]), torch.tensor([3])),
            ]
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_factor_that_rounding_makes_indefinite_is_solved_in_float64():
    x = torch.tensor([1.0, 1 + 2**-12])
    matrix = torch.outer(x, x)  # the determinant is lost in float32, not in float64
    matrix[1, 1] -= 2**-23
    right = torch.tensor([[1.0], [2.0]])
    assert torch.linalg.cholesky_ex(matrix).info
    expected = torch.linalg.solve(matrix.double(), right.double()).float()
    torch.testing.assert_close(removal._solve(matrix, right), expected)

"""Costs and updates beside the dense `RC x RC` formulas in float64; factors beside plain sums."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.methods.llm_surgeon import fisher
from prunebook.passes.statistics import add_gram

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def spd(size, seed, dtype=torch.float64):
    """A random positive definite matrix with clear correlations."""
    x = torch.randn(size, 3 * size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x @ x.T / (3 * size) + 0.3


def problem(rows=4, columns=6, seed=0):
    """`W, G, A, G^-1, A^-1` in float64."""
    W = torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    G = spd(rows, seed + 1)
    A = spd(columns, seed + 2)
    return W, G, A, torch.linalg.inv(G), torch.linalg.inv(A)


def surgeon(W, G, A, removed):
    """Cost and new weight of removing the entries `removed` together, from the whole matrix `G (x)
    A`."""
    F = torch.kron(G, A)
    theta = W.flatten()
    q = removed.flatten()
    inverse = torch.linalg.inv(F)
    solved = torch.linalg.solve(inverse[q][:, q], theta[q])
    return 0.5 * theta[q] @ solved, (theta - inverse[:, q] @ solved).view(W.shape)


def loss(W, new, G, A):
    """`delta^T (G (x) A) delta / 2`, the rise of a loss whose Hessian is exactly that."""
    delta = (new - W).flatten()
    return 0.5 * delta @ torch.kron(G, A) @ delta


def entries(shape, rows=(), columns=()):
    removed = torch.zeros(shape, dtype=torch.bool)
    removed[list(rows)] = True
    removed[:, list(columns)] = True
    return removed


@pytest.mark.parametrize("seed", range(3))
def test_costs_of_single_structures_are_those_of_the_whole_matrix(seed):
    W, G, A, Gi, Ai = problem(seed=seed)
    g = 1 / Gi.diagonal()
    a = 1 / Ai.diagonal()
    for r in range(4):
        expected, _ = surgeon(W, G, A, entries(W.shape, rows=[r]))
        torch.testing.assert_close(fisher.row_costs(W, A, g)[r], expected, **EXACT)
        for c in range(6):
            one = torch.zeros(W.shape, dtype=torch.bool)
            one[r, c] = True
            expected, _ = surgeon(W, G, A, one)
            torch.testing.assert_close(fisher.element_costs(W, g, a)[r, c], expected, **EXACT)
    for c in range(6):
        expected, _ = surgeon(W, G, A, entries(W.shape, columns=[c]))
        torch.testing.assert_close(fisher.column_costs(W, G, a)[c], expected, **EXACT)


def test_without_compensation_costs_use_the_diagonals_of_the_factors():
    W, G, A, _, _ = problem()
    g = G.diagonal()
    a = A.diagonal()
    removed = entries(W.shape, rows=[2])
    torch.testing.assert_close(
        fisher.row_costs(W, A, g)[2], loss(W, W.masked_fill(removed, 0), G, A), **EXACT
    )
    removed = entries(W.shape, columns=[5])
    torch.testing.assert_close(
        fisher.column_costs(W, G, a)[5], loss(W, W.masked_fill(removed, 0), G, A), **EXACT
    )
    one = W.clone()
    one[1, 3] = 0
    torch.testing.assert_close(fisher.element_costs(W, g, a)[1, 3], loss(W, one, G, A), **EXACT)


def test_costs_by_hand():
    W = torch.tensor([[2.0, 0], [1, 3]])
    G = torch.tensor([[2.0, 0], [0, 4]])
    A = torch.tensor([[1.0, 0.5], [0.5, 1]])
    g = torch.tensor([2.0, 4])  # [A^-1]_cc = 4/3
    a = torch.tensor([0.75, 0.75])
    assert fisher.element_costs(W, g, a).tolist() == [[3.0, 0.0], [1.5, 13.5]]
    assert fisher.row_costs(W, A, g).tolist() == [4.0, 26.0]  # 4 * 2 / 2 and (1 + 9 + 3) * 4 / 2
    assert fisher.column_costs(W, G, a).tolist() == [4.5, 13.5]  # (8 + 4) * 3/8 and 36 * 3/8
    assert fisher.group_costs(torch.tensor([[4.0, 1, 3, 2, 0, 0, 5, 9]]), 2, 4).tolist() == [
        [3.0, 0.0]
    ]
    assert fisher.group_costs(torch.tensor([[4.0, 1, 3, 2]]), 1, 4).tolist() == [[6.0]]


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
    new = fisher.remove_rows_columns(W, Gi, Ai, *index)
    torch.testing.assert_close(new, expected.masked_fill(removed, 0), rtol=1e-7, atol=1e-7)
    assert (new[removed] == 0).all()
    # The loss rises by what was predicted, and no less is possible: claim of exactness on a
    # quadratic loss.
    torch.testing.assert_close(loss(W, new, G, A), cost, rtol=1e-6, atol=1e-9)
    added = fisher.remove_rows_columns(W, Gi, Ai, *index, max_correlate=100)
    assert loss(W, added, G, A) >= cost - 1e-9


def test_added_updates_are_worse_than_joint_ones_and_single_ones_still_worse():
    W, G, A, Gi, Ai = problem(8, 9)
    index = torch.tensor([0, 2, 5]), torch.tensor([1, 3, 4])
    joint, added, single = (
        loss(W, fisher.remove_rows_columns(W, Gi, Ai, *index, limit), G, A)
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
        fisher.remove_rows_columns(W, Gi, Ai, rows, columns, 2), expected, **EXACT
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**24 - 1), st.integers(0, 99))
def test_entries_of_one_group_go_at_the_predicted_cost(bits, seed):
    W, G, A, Gi, Ai = problem(4, 6, seed)
    removed = torch.tensor([bool(bits >> i & 1) for i in range(24)]).view(4, 6)
    cost, expected = surgeon(W, G, A, removed)
    new = fisher.remove_elements(W, Gi, Ai, removed, 24)
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
    torch.testing.assert_close(fisher.remove_elements(W, Gi, Ai, removed, 3), expected, **EXACT)


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
    assert fisher._row_groups(counts, limit) == groups


def test_without_gradients_one_entry_is_the_step_of_optimal_brain_surgeon():
    W, _, _, _, Ai = problem(1, 6)
    removed = entries(W.shape, columns=[2])
    step = W - W[0, 2] / Ai[2, 2] * Ai[2]
    step[0, 2] = 0
    identity = torch.eye(1, dtype=torch.float64)
    torch.testing.assert_close(fisher.remove_elements(W, identity, Ai, removed, 10), step, **EXACT)


def test_without_curvature_it_is_magnitude_pruning():
    W = problem(5, 6)[0]
    G = torch.eye(5, dtype=torch.float64)
    A = torch.eye(6, dtype=torch.float64)
    ones = torch.ones(5, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    assert torch.equal(fisher.element_costs(W, *ones), W.square() / 2)
    removed = W.abs() < 0.7
    assert torch.equal(fisher.remove_elements(W, G, A, removed, 7), W.masked_fill(removed, 0))
    index = torch.tensor([1]), torch.tensor([0, 4])
    expected = W.masked_fill(entries(W.shape, [1], [0, 4]), 0)
    assert torch.equal(fisher.remove_rows_columns(W, G, A, *index), expected)


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
                fisher.element_costs(W, g, a),
                fisher.row_costs(W, A / c, g),
                fisher.column_costs(W, c * G, a),
                fisher.remove_elements(W, Gi, Ai, removed, 9),
                fisher.remove_rows_columns(W, Gi, Ai, torch.tensor([0]), torch.tensor([3])),
            ]
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_inverse_is_damped_by_a_fraction_of_the_mean_diagonal():
    factor = torch.tensor([[4.0, 1], [1, 2]])
    expected = torch.linalg.inv(torch.tensor([[5.5, 1], [1, 3.5]]))
    torch.testing.assert_close(fisher.damped_inverse(factor, 0.5), expected)
    with pytest.raises(UserError, match=r"factor \[3, 3\] is not positive definite with damping 0"):
        fisher.damped_inverse(torch.ones(3, 3), 0)


def test_a_factor_that_rounding_makes_indefinite_is_solved_in_float64():
    x = torch.tensor([1.0, 1 + 2**-12])
    matrix = torch.outer(x, x)  # the determinant is lost in float32, not in float64
    matrix[1, 1] -= 2**-23
    right = torch.tensor([[1.0], [2.0]])
    assert torch.linalg.cholesky_ex(matrix).info
    expected = torch.linalg.solve(matrix.double(), right.double()).float()
    torch.testing.assert_close(fisher._solve(matrix, right), expected)


@pytest.mark.parametrize("width", [1, 7, 300, 600])  # 600 takes three panels of rows
def test_second_moments_are_means_over_tokens(width):
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 5, width, generator=generator) + 0.5 for n in (1, 3)]
    statistic = fisher.SecondMoment(width, torch.device("cpu"))
    for batch in batches:
        statistic.update(batch)
    x = torch.cat([batch.flatten(0, 1) for batch in batches]).double()
    torch.testing.assert_close(statistic.matrix().double(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(statistic.matrix(), statistic.matrix().T)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(
        statistic.matrix(bias=True).double(), x.T @ x / len(x), rtol=1e-4, atol=1e-5
    )
    assert statistic.is_finite()
    statistic.update(torch.full((1, 1, width), float("nan")))
    assert not statistic.is_finite()


def test_narrow_inputs_are_summed_in_float32():
    x = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    total = torch.zeros(8, 8)
    add_gram(total, x)
    expected = x.double().flatten(0, 1).T @ x.double().flatten(0, 1)
    torch.testing.assert_close(total.tril().double(), expected.tril(), rtol=1e-5, atol=1e-4)


def test_the_last_inverse_is_kept_until_something_else_is_asked_or_seen():
    inputs = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(5))
    statistic = fisher.SecondMoment(6, torch.device("cpu"))
    statistic.update(inputs)
    all_alive = torch.ones(6, dtype=torch.bool)
    some = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    kept = statistic.inverse(0.1, all_alive)
    assert statistic.inverse(0.1, all_alive.clone()) is kept
    assert statistic.inverse(0.1) is kept
    moment = inputs.flatten(0, 1).T @ inputs.flatten(0, 1) / 32

    def expected(factor, damping):
        return torch.linalg.inv(
            factor + damping * factor.diagonal().mean() * torch.eye(len(factor))
        )

    torch.testing.assert_close(kept, expected(moment, 0.1))
    torch.testing.assert_close(statistic.inverse(0.3, all_alive), expected(moment, 0.3))
    torch.testing.assert_close(statistic.inverse(0.3, some), expected(moment[some][:, some], 0.3))
    bordered = statistic.inverse(0.3, bias=True)
    torch.testing.assert_close(bordered, expected(statistic.matrix(bias=True), 0.3))
    statistic.update(2 * inputs)
    torch.testing.assert_close(
        statistic.inverse(0.3, bias=True), expected(statistic.matrix(bias=True), 0.3)
    )
    torch.testing.assert_close(statistic.inverse(0.1, all_alive), expected(2.5 * moment, 0.1))

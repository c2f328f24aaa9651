"""Algorithm 1 by hand, by its identities, and beside a plain float64 loop over the columns."""

import pytest
import torch

from prunebook.criteria.wanda import wanda_score
from prunebook.errors import UserError
from prunebook.methods.sparsegpt.column_sweep import sparsegpt_sweep, sparsegpt_update
from prunebook.sparsity.patterns import NofM, Unstructured, count_removed, keep_mask

HALF = Unstructured(0.5, "layer")
PATTERNS = [HALF, Unstructured(0.3, "layer"), NofM(2, 4), NofM(4, 8), NofM(1, 3)]


def problem(rows=12, columns=48, tokens=400, seed=0, mix=0.3):
    """Weight `[rows, columns]` and correlated inputs `[tokens, columns]`, float32."""
    generator = torch.Generator().manual_seed(seed)
    mixing = (
        torch.eye(columns) + mix * torch.randn(columns, columns, generator=generator) / columns**0.5
    )
    inputs = torch.randn(tokens, columns, generator=generator) @ mixing
    return torch.randn(rows, columns, generator=generator), inputs


def hessian(inputs):
    return inputs.T @ inputs


def reference(weight, H, pattern, damping, block_size):
    """Column by column in float64, every later column updated at once: `(new weight, removed)`."""
    W = weight.double().clone()
    H = H.double()
    H = H + damping * H.diagonal().mean() * torch.eye(len(H), dtype=torch.float64)
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)
    removed = torch.zeros(W.shape, dtype=torch.bool)
    for j in range(W.shape[1]):
        if isinstance(pattern, NofM) and j % pattern.m == 0:
            group = slice(j, j + pattern.m)
            order = (W[:, group] ** 2 / U.diagonal()[group] ** 2).argsort(dim=1, stable=True)
            removed[:, group].scatter_(1, order[:, : pattern.m - pattern.n], True)
        elif not isinstance(pattern, NofM) and j % block_size == 0:
            block = slice(j, min(j + block_size, W.shape[1]))
            scores = (W[:, block] ** 2 / U.diagonal()[block] ** 2).flatten()
            chosen = scores.argsort(stable=True)[: int(len(scores) * pattern.sparsity)]
            part = torch.zeros(len(scores), dtype=torch.bool).scatter_(0, chosen, True)
            removed[:, block] = part.view(len(W), -1)
        error = torch.where(removed[:, j], W[:, j], 0) / U[j, j]
        W[:, j:] -= error[:, None] * U[j, j:]
        W[removed[:, j], j] = 0
    return W, removed


def test_two_columns_by_hand():
    # Scores 1.5 and 18: the first weight goes; the second becomes 3 + H_01 / H_11 * 1 = 3.5, at
    # loss 1.5.
    H = torch.tensor([[2.0, 1], [1, 2]])
    new, keep = sparsegpt_update(torch.tensor([[1.0, 3]]), H, HALF, damping=0)
    assert keep.tolist() == [[False, True]]
    assert new[0, 0].item() == 0
    assert new[0, 1].item() == pytest.approx(3.5)
    change = new - torch.tensor([[1.0, 3]])
    assert (change @ H @ change.T).item() == pytest.approx(1.5)


def test_the_last_column_has_nobody_to_help_it():
    new, keep = sparsegpt_update(
        torch.tensor([[3.0, 1]]), torch.tensor([[2.0, 1], [1, 2]]), HALF, damping=0
    )
    assert keep.tolist() == [[True, False]]
    assert new.tolist() == [[3, 0]]


def test_diagonal_hessian_is_wanda_without_update():
    weight, inputs = problem()
    norm = inputs.norm(dim=0)
    new, keep = sparsegpt_update(weight, torch.diag(norm**2), HALF, block_size=48)
    # The damping is added to the diagonal and must be in the norm too.
    damped = (norm**2 + 0.01 * (norm**2).mean()).sqrt()
    assert torch.equal(keep, keep_mask(wanda_score(weight, damped), HALF))
    assert torch.equal(new, weight * keep)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize(("columns", "block_size"), [(48, 48), (48, 24), (120, 48), (264, 240)])
def test_agrees_with_the_plain_algorithm(pattern, columns, block_size):
    weight, inputs = problem(columns=columns, tokens=5 * columns, seed=columns)
    new, keep = sparsegpt_update(weight, hessian(inputs), pattern, 0.01, block_size)
    expected, removed = reference(weight, hessian(inputs), pattern, 0.01, block_size)
    assert torch.equal(keep, ~removed)
    assert (new[~keep] == 0).all()
    torch.testing.assert_close(new.double(), expected, rtol=1e-4, atol=1e-5)


def test_update_is_e_times_u_and_its_loss_the_squared_errors():
    weight, inputs = problem()
    H = hessian(inputs)
    new, keep = sparsegpt_update(weight, H, HALF, 0.01, 24)
    damped = H.double() + 0.01 * H.double().diagonal().mean() * torch.eye(48, dtype=torch.float64)
    U = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    change = weight.double() - new.double()
    errors = change @ torch.linalg.inv(U)
    scale = errors.abs().max()
    assert (errors[keep].abs() < 1e-5 * scale).all()  # a kept weight makes no error of its own
    assert (errors[~keep].abs() > 1e-4 * scale).sum() > 0.9 * (~keep).sum()
    loss = (change @ damped @ change.T).diagonal()
    torch.testing.assert_close(loss, errors.square().sum(1), rtol=1e-8, atol=0)


def test_removing_the_first_columns_is_least_squares_on_the_others():
    weight, inputs = problem()
    weight[:, :24] *= 1e-3 / weight[:, :24].abs()  # so small that the first half goes in every row
    new, keep = sparsegpt_update(weight, hessian(inputs), HALF, damping=0, block_size=48)
    assert torch.equal(keep, torch.arange(48).expand(12, 48) >= 24)
    weight = weight.double()
    inputs = inputs.double()
    exact = torch.linalg.lstsq(inputs[:, 24:], inputs @ weight.T).solution.T
    torch.testing.assert_close(new[:, 24:].double(), exact, rtol=1e-4, atol=1e-5)


def test_the_update_lowers_the_error_of_the_same_mask():
    weight, inputs = problem(mix=1)
    new, keep = sparsegpt_update(weight, hessian(inputs), HALF)
    assert (inputs @ (new - weight).T).norm() < 0.9 * (inputs @ (weight * keep - weight).T).norm()


@pytest.mark.parametrize("pattern", [NofM(2, 4), NofM(4, 8)], ids=str)
def test_the_block_size_does_not_change_n_of_m(pattern):
    weight, inputs = problem(columns=96)
    whole, keep = sparsegpt_update(weight, hessian(inputs), pattern, block_size=96)
    for block_size in (8, 40, 64, 4096):
        new, mask = sparsegpt_update(weight, hessian(inputs), pattern, block_size=block_size)
        assert torch.equal(mask, keep)
        torch.testing.assert_close(new, whole, rtol=1e-4, atol=1e-6)


def test_the_block_size_shares_out_unstructured_sparsity():
    weight, inputs = problem()
    whole = sparsegpt_update(weight, hessian(inputs), HALF, block_size=48)[1]
    columns = sparsegpt_update(weight, hessian(inputs), HALF, block_size=1)[1]
    assert (columns.sum(0) == 6).all()
    assert not torch.equal(whole, columns)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_scale_of_the_inputs_does_not_matter(pattern):
    weight, inputs = problem()
    new, keep = sparsegpt_update(weight, hessian(inputs), pattern)
    for scale in (2.0**-8, 2.0**10):  # powers of two: no rounding, so bit-equal
        scaled, mask = sparsegpt_update(weight, hessian(inputs * scale), pattern)
        assert torch.equal(mask, keep)
        torch.testing.assert_close(scaled, new, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_rows_may_be_permuted(pattern):
    weight, inputs = problem()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    new, keep = sparsegpt_update(weight, hessian(inputs), pattern)
    permuted, mask = sparsegpt_update(weight[order], hessian(inputs), pattern)
    assert torch.equal(mask, keep[order])
    torch.testing.assert_close(permuted, new[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_siblings_are_solved_as_if_alone(pattern):
    first, inputs = problem()
    # with a shared threshold, the first would lose everything
    second = problem(rows=5, seed=1)[0] * 100
    together = sparsegpt_sweep([first, second], hessian(inputs), [pattern] * 2, 0.01, 24)
    for weight, (new, keep) in zip([first, second], together, strict=True):
        alone, mask = sparsegpt_update(weight, hessian(inputs), pattern, 0.01, 24)
        assert torch.equal(keep, mask)
        torch.testing.assert_close(new, alone, rtol=1e-5, atol=1e-5)


def test_a_dead_input_loses_its_weights_and_disturbs_nobody():
    weight, inputs = problem()
    inputs[:, [0, 7, 47]] = 0
    new, keep = sparsegpt_update(weight, hessian(inputs), HALF)
    assert torch.isfinite(new).all()
    assert (new[:, [0, 7, 47]] == 0).all()
    assert not keep[:, [0, 7, 47]].any()
    assert (~keep).sum() == 12 * 48 // 2


@pytest.mark.parametrize("sparsity", [0.5, 0.3, 0.29, 0.9])
def test_every_block_has_its_own_exact_count(sparsity):
    weight, inputs = problem(rows=7, columns=576, tokens=800)
    new, keep = sparsegpt_update(weight, hessian(inputs), Unstructured(sparsity, "layer"))
    widths = [128, 128, 128, 128, 64]  # 576 is four and a half blocks
    for block, width in zip(keep.split(128, dim=1), widths, strict=True):
        assert (~block).sum() == count_removed(7 * width, sparsity)
    assert torch.equal(new == 0, ~keep)


def test_arguments_are_left_alone():
    weight, inputs = problem()
    H = hessian(inputs)
    before = weight.clone(), H.clone()
    H[0, 0] = before[1][0, 0] = 0  # a dead input is set to one in a copy
    sparsegpt_update(weight, H, HALF, damping=0.5)
    assert torch.equal(weight, before[0])
    assert torch.equal(H, before[1])


def test_bad_input_is_refused():
    weight, inputs = problem()
    with pytest.raises(UserError, match="weight has 48 inputs, which pattern 3:5 does not divide"):
        sparsegpt_update(weight, hessian(inputs), NofM(3, 5))
    with pytest.raises(UserError, match="not positive definite"):
        sparsegpt_update(weight, torch.ones(48, 48), HALF, damping=0)
    with pytest.raises(UserError, match="NaN"):
        sparsegpt_update(weight * float("nan"), hessian(inputs), HALF)

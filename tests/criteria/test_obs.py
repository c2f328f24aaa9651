"""The Hessian of a linear's input, and the factor of its inverse."""

import pytest
import torch

from prunebook.criteria.obs import inverse_factor, obs_score
from prunebook.errors import UserError

CPU = torch.device("cpu")


def random_inputs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) @ torch.randn(
        shape[-1], shape[-1], generator=generator
    )


def positive_definite(width, seed=0):
    x = random_inputs(4 * width, width, seed=seed).double()
    return x.T @ x


@pytest.mark.parametrize("damping", [0.0, 0.01, 1.0])
def test_factor_of_the_inverse_in_float64(damping):
    H = positive_definite(40)
    U = inverse_factor(H, damping)
    damped = H + damping * H.diagonal().mean() * torch.eye(40, dtype=torch.float64)
    assert torch.equal(U, U.triu())
    assert (U.diagonal() > 0).all()
    torch.testing.assert_close(U.T @ U, torch.linalg.inv(damped), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        U, torch.linalg.cholesky(torch.linalg.inv(damped), upper=True), rtol=1e-8, atol=1e-9
    )


def test_squared_diagonal_is_that_of_the_inverse_of_what_remains():
    H = positive_definite(12)
    U = inverse_factor(H, 0)
    for j in range(12):
        assert U[j, j].item() ** 2 == pytest.approx(
            torch.linalg.inv(H[j:, j:])[0, 0].item(), rel=1e-10
        )


def test_factor_leaves_the_matrix_alone():
    H = positive_definite(6)
    before = H.clone()
    inverse_factor(H, 0.1)
    assert torch.equal(H, before)


@pytest.mark.parametrize(
    "matrix", [[[1.0, 1], [1, 1]], [[1.0, 2], [2, 1]], [[1.0, float("nan")], [float("nan"), 1]]]
)
def test_a_matrix_that_is_not_positive_definite_is_refused(matrix):
    with pytest.raises(
        UserError, match=r"Hessian \[2, 2\] is not positive definite with damping 0"
    ):
        inverse_factor(torch.tensor(matrix), 0)


def test_damping_makes_a_singular_matrix_usable():
    # ones + 0.5 I has the inverse 2 I - 0.8 ones.
    U = inverse_factor(torch.ones(2, 2, dtype=torch.float64), 0.5)
    torch.testing.assert_close(
        U.T @ U, torch.tensor([[1.2, -0.8], [-0.8, 1.2]], dtype=torch.float64)
    )


def test_damping_is_a_fraction_of_the_mean_diagonal():
    H = torch.tensor([[4.0, 1], [1, 2]])
    torch.testing.assert_close(inverse_factor(H, 0.5), inverse_factor(H + 1.5 * torch.eye(2), 0))


def test_score_by_hand():
    # H = [[2, 1], [1, 2]]: inverse [[2, -1], [-1, 2]] / 3, so U_00^2 = 2/3 and U_11^2 = 1/2.
    U = inverse_factor(torch.tensor([[2.0, 1], [1, 2]]), 0)
    assert obs_score(torch.tensor([[1.0, 3]]), U.diagonal())[0].tolist() == pytest.approx([1.5, 18])

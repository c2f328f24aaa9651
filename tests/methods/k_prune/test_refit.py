"""The refit: the least squares that give a sublayer what it lacks."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.k_prune.refit import refit


def test_a_refit_repairs_a_lost_twin_and_never_fits_worse():
    torch.manual_seed(0)
    a = torch.randn(200, 6)
    old = torch.nn.Linear(6, 4)
    a[:, 5] = a[:, 2]  # twins
    target = old(a).detach()
    small = torch.nn.Linear(5, 4)
    small.weight.data, small.bias.data = old.weight.data[:, :5].clone(), old.bias.data.clone()
    lacking = target - small(a[:, :5]).detach()
    before = lacking.square().sum()
    with torch.no_grad():
        refit(small, [(a[:70, :5], lacking[:70]), (a[70:, :5], lacking[70:])], 1e-9)
    assert before > 1
    torch.testing.assert_close(small(a[:, :5]), target, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        small.weight[:, 2], old.weight[:, 2] + old.weight[:, 5], rtol=1e-4, atol=1e-4
    )


def test_a_refit_is_the_least_squares_solution():
    torch.manual_seed(1)
    a = torch.randn(50, 6)
    wanted = torch.randn(50, 3)
    linear = torch.nn.Linear(6, 3)
    lacking = wanted - linear(a).detach()
    with torch.no_grad():
        refit(linear, [(a, lacking)], 1e-12)
    best = torch.linalg.lstsq(a, wanted - linear.bias.detach()).solution.T
    torch.testing.assert_close(linear.weight.detach(), best, rtol=1e-4, atol=1e-4)


def test_one_massive_token_does_not_break_the_refit():
    torch.manual_seed(2)
    a = torch.randn(200, 12, dtype=torch.float64)
    linear = torch.nn.Linear(12, 3)
    a[7] *= 1e6  # float32 products would lose the rest behind it
    old = torch.nn.Linear(12, 3)
    a = a.float()
    lacking = (a.double() @ (old.weight - linear.weight).double().T).float().detach()
    with torch.no_grad():
        refit(linear, [(a, lacking)], 0.0)
    torch.testing.assert_close(linear.weight, old.weight, rtol=1e-3, atol=1e-4)


def test_dependent_inputs_without_damping_are_refused_in_one_line():
    a = torch.ones(50, 3)
    with pytest.raises(
        UserError,
        match="3 inputs of a sublayer to refit depend on each other, which damping 0 is too",
    ):
        refit(torch.nn.Linear(3, 2), [(a, a[:, :2])], 0.0)


def test_silent_units_keep_their_weights():
    linear = torch.nn.Linear(3, 2)
    before = linear.weight.detach().clone()
    with torch.no_grad():
        refit(linear, [(torch.zeros(10, 3), torch.randn(10, 2))], 1e-6)
    assert torch.equal(linear.weight, before)

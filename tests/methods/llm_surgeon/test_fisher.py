"""Factors beside plain sums, and their damped inverses."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.llm_surgeon import fisher
from prunebook.passes.statistics import add_gram


def test_the_inverse_is_damped_by_a_fraction_of_the_mean_diagonal():
    factor = torch.tensor([[4.0, 1], [1, 2]])
    expected = torch.linalg.inv(torch.tensor([[5.5, 1], [1, 3.5]]))
    torch.testing.assert_close(fisher.damped_inverse(factor, 0.5), expected)
    with pytest.raises(UserError, match=r"factor \[3, 3\] is not positive definite with damping 0"):
        fisher.damped_inverse(torch.ones(3, 3), 0)


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

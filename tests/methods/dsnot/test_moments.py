"""Sums, variances and norms of a linear's inputs, and the scores that DSnoT takes from them."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods import SparseGPT
from prunebook.methods.dsnot.moments import InputMoments, InputMomentsAndHessian, expected_change
from prunebook.passes.statistics import InputNorm

CPU = torch.device("cpu")


def moments(*batches, cls=InputMoments, **named):
    statistic = cls(batches[0].shape[-1], CPU, **named)
    for batch in batches:
        statistic.update(batch)
    return statistic


def test_two_sequences_by_hand():
    inputs = torch.tensor([[[1.0, 0], [3, 0]], [[5.0, 0], [5, 0]]])  # feature 0: 1, 3 and 5, 5
    statistic = moments(inputs)
    assert statistic.sums.tolist() == [7, 0]  # sums 4 and 10
    assert moments(inputs, variance="within").variance().tolist() == [0.5, 0]  # 1 and 0
    assert statistic.variance().tolist() == [2.75, 0]  # of 1, 3, 5, 5
    assert statistic.norm().square().tolist() == pytest.approx([30, 0])
    assert expected_change(torch.tensor([[2.0, 1], [-1, 1]]), statistic.sums).tolist() == [
        [14, 0],
        [-7, 0],
    ]


def test_any_batches_give_the_variance_of_all_tokens():
    inputs = (
        torch.randn(7, 16, 5, generator=torch.Generator().manual_seed(0)) * 2 + torch.arange(5) * 10
    )
    inputs += torch.arange(7).view(7, 1, 1)  # sequences differ in their means
    exact = inputs.double()
    for batches in ([inputs], inputs.split(3), inputs):
        statistic = moments(*batches)
        within = moments(*batches, variance="within").variance()
        torch.testing.assert_close(statistic.sums, exact.sum(1).mean(0).float())
        torch.testing.assert_close(
            statistic.variance(), exact.flatten(0, 1).var(0, correction=0).float()
        )
        torch.testing.assert_close(within, exact.var(1, correction=0).mean(0).float())
        assert (statistic.variance() > within).all()
    norm = InputNorm(5, CPU)
    for sequence in inputs:
        norm.update(sequence)
    assert torch.equal(statistic.norm(), norm.norm())


def test_narrow_inputs_are_summed_in_float32():
    inputs = torch.randn(2, 300, 3, generator=torch.Generator().manual_seed(1)).bfloat16()
    statistic = moments(inputs)
    torch.testing.assert_close(statistic.sums, inputs.float().sum(1).mean(0))
    assert {t.dtype for t in (statistic.sums, statistic.variance(), statistic.norm())} == {
        torch.float32
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_seen(value):
    inputs = torch.ones(2, 3, 4)
    assert moments(inputs).is_finite()
    inputs[1, 2, 3] = value
    assert not moments(inputs).is_finite()


def test_an_unknown_variance_is_refused():
    with pytest.raises(UserError, match="variance 'all' is unknown; use 'pooled' or 'within'"):
        moments(torch.ones(1, 2, 3), variance="all")


def test_the_obs_score_is_that_of_sparsegpt_before_any_update():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 8, generator=generator)
    inputs = torch.randn(4, 30, 8, generator=generator)
    score = moments(inputs, cls=InputMomentsAndHessian).obs_score(weight)
    hessian = torch.einsum("nli,nlj->ij", inputs, inputs).double()
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).diagonal()
    ratio = score.double() / (weight.double() / factor).square()
    # H may have any scale
    torch.testing.assert_close(ratio, ratio[:1, :1].expand(6, 8), rtol=1e-4, atol=0)
    pruned = SparseGPT(sparsity=0.5, update=False, block_size=8).prune_matrix(weight, inputs)
    # With one block and no update of earlier columns that matters to the threshold, the mask is
    # that of the scores.
    lowest = score.flatten().argsort()[:24]
    assert (pruned.flatten()[lowest] == 0).all()


def test_a_dead_feature_has_the_obs_score_zero():
    inputs = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0))
    inputs[..., 2] = 0
    score = moments(inputs, cls=InputMomentsAndHessian).obs_score(torch.ones(3, 4))
    assert (score[:, 2] == 0).all()
    assert (score[:, [0, 1, 3]] > 0).all()

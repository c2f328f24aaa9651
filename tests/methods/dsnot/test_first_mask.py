"""The criterion of the first mask: what it reads, and its scores."""

import pytest
import torch

from prunebook.criteria import SCORES
from prunebook.methods.dsnot.first_mask import CRITERIA, first_scores, make_statistic
from prunebook.methods.dsnot.moments import InputMomentsAndHessian

WEIGHT = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
INPUTS = torch.randn(3, 10, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_those_of_the_criterion(criterion):
    statistic = make_statistic(6, torch.device("cpu"), criterion)
    statistic.update(INPUTS)
    scores = first_scores(criterion, WEIGHT, statistic)
    if criterion == "sparsegpt":
        expected = statistic.obs_score(WEIGHT)
    else:
        expected = SCORES[criterion](WEIGHT, statistic.norm()).dense()
    assert torch.equal(scores, expected)
    # Only the score of SparseGPT needs the products of all pairs of inputs.
    assert isinstance(statistic, InputMomentsAndHessian) == (criterion == "sparsegpt")


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_released_variance_is_that_within_sequences(criterion):
    statistic = make_statistic(6, torch.device("cpu"), criterion, ("variance",))
    statistic.update(INPUTS)
    assert torch.allclose(statistic.variance(), INPUTS.var(1, correction=0).mean(0))

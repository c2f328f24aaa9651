"""Pruning by a score of the reader's own."""

import torch

from prunebook.criteria import SCORES
from prunebook.criteria.wanda import wanda_factors
from prunebook.methods.scored import prune_by_score
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.sparsity.allocation import uniform
from prunebook.sparsity.patterns import Unstructured


def weights(model) -> list[torch.Tensor]:
    return [weight_of(linear) for block in find_blocks(model) for linear in block.linears.values()]


def test_scores_prune_as_their_factors_do(make_model, tokens):
    by_scores = make_model("llama")
    by_factors = make_model("llama")
    targets = uniform(by_scores, Unstructured(0.5))
    prune_by_score(by_scores, tokens, SCORES["wanda"], targets)
    prune_by_score(by_factors, tokens, wanda_factors, targets)
    assert all(map(torch.equal, weights(by_scores), weights(by_factors)))


def test_a_score_need_not_look_at_magnitudes(make_model, tokens):
    """The lowest index has the lowest score: the left half of every row goes, and only that."""
    model = make_model("llama")
    dense = make_model("llama")
    prune_by_score(
        model,
        tokens,
        lambda weight, norm: norm.new_ones(weight.shape).cumsum(1),
        uniform(model, Unstructured(0.5)),
    )
    for pruned, before in zip(weights(model), weights(dense), strict=True):
        half = pruned.shape[1] // 2
        assert pruned[:, :half].eq(0).all()
        assert torch.equal(pruned[:, half:], before[:, half:])

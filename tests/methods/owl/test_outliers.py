"""OWL's outliers: by hand, and those of the dense model."""

import pytest
import torch
from tests.whole_models import inputs_of_linears

from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.methods.owl.outliers import outlier_percentage, outliers
from prunebook.models.anatomy import find_blocks, weight_of


def test_outliers_by_hand(make_model, tokens, monkeypatch):
    # One weight of four stands above twice the mean: scores 1, 1, 1, 9 have the mean 3.
    monkeypatch.setattr(
        "prunebook.methods.owl.outliers.wanda_score",
        lambda weight, norm: Score(scores, given=True),
    )
    model = make_model("llama")
    scores = torch.tensor([[1.0, 1], [1, 9]])
    assert set(outliers(model, tokens, 2.0).values()) == {25.0}
    scores = torch.tensor([[1.0, 1, 4]])  # twice the mean exactly is no outlier
    assert set(outliers(model, tokens, 2.0).values()) == {0.0}


def test_the_percentage_is_of_all_linears_together():
    scores = [torch.tensor([[1.0, 1]]), torch.tensor([[1.0, 9]])]
    assert outlier_percentage(scores, 2.0) == 25.0
    assert outlier_percentage(scores[:1], 2.0) == 0.0


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_outliers_are_those_of_the_dense_model(make_model, tokens, family):
    model = make_model(family)
    seen = inputs_of_linears(model, tokens)
    by_block = outliers(model, tokens, 2.0)
    by_layer = outliers(model, tokens, 2.0, granularity="layer")
    for block in find_blocks(model):
        scores = {
            name: weight_of(linear).double().abs() * seen[name].double().flatten(0, -2).norm(dim=0)
            for name, linear in block.linears.items()
        }
        together = torch.cat([score.flatten() for score in scores.values()])
        for name, score in scores.items():
            assert by_layer[name] == pytest.approx(
                100 * (score > 2 * score.mean()).double().mean().item(), abs=1e-9
            )
            assert by_block[name] == pytest.approx(
                100 * (together > 2 * together.mean()).double().mean().item()
            )


def test_an_unknown_granularity_is_refused(make_model, tokens):
    with pytest.raises(UserError, match="granularity 'row' is unknown; use 'block' or 'layer'"):
        outliers(make_model("llama"), tokens, granularity="row")

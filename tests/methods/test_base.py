"""A score method of the reader's own, and what the contract declares of every method."""

from dataclasses import dataclass

import pytest
import torch

from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.methods.base import Method, ScoreMethod
from prunebook.methods.prune import prune
from prunebook.methods.registry import REGISTRY, load_class
from prunebook.models.anatomy import find_blocks, weight_of


@dataclass(frozen=True)
class LeftFirst(ScoreMethod):
    """The lowest index has the lowest score, whatever the weights are."""

    def score(self, weight, inputs):
        scores = torch.ones(weight.shape).cumsum(1)
        return Score(scores, given=True)


def weights(model) -> list[torch.Tensor]:
    blocks = find_blocks(model)
    return [weight_of(linear) for block in blocks for linear in block.linears.values()]


def test_a_score_need_not_look_at_magnitudes(make_model, tokens):
    """The left half of every row goes, and only that."""
    model = make_model("llama")
    report = prune(model, LeftFirst(sparsity=0.5), calibration=tokens)
    assert report.method == "LeftFirst"
    assert report.sparsity == 0.5
    for pruned, before in zip(weights(model), weights(make_model("llama")), strict=True):
        half = pruned.shape[1] // 2
        assert pruned[:, :half].eq(0).all()
        assert torch.equal(pruned[:, half:], before[:, half:])


def test_one_matrix_by_hand():
    weight = torch.tensor([[1.0, 2, 3, 4]])
    pruned = LeftFirst(sparsity=0.25).prune_matrix(weight, torch.ones(3, 4))
    assert pruned.tolist() == [[0, 2, 3, 4]]
    assert weight.tolist() == [[1, 2, 3, 4]]


def test_a_scope_that_the_method_does_not_allow_is_refused():
    message = "scope .model. is not allowed for LeftFirst; use .row. or"
    with pytest.raises(UserError, match=message):
        LeftFirst(sparsity=0.5, scope="model")
    assert LeftFirst(pattern="2:4").describe() == "2:4"


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (lambda weight: weight.abs(), r"Tensor \[32, 32\]"),
        (lambda weight: Score(weight[:1]), r"Score \[1, 32\]"),
        (lambda weight: None, r"NoneType \[\]"),
    ],
)
def test_a_score_of_another_shape_is_refused_before_anything_changes(
    make_model, tokens, wrong, shown
):
    @dataclass(frozen=True)
    class Wrong(ScoreMethod):
        def score(self, weight, inputs):
            return wrong(weight)

    model = make_model("llama")
    message = rf"the score of Wrong is {shown}; return a Score of the weight, \[32, 32\]"
    with pytest.raises(UserError, match=message):
        prune(model, Wrong(sparsity=0.5), calibration=tokens)
    assert all(map(torch.equal, weights(model), weights(make_model("llama"))))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_method_declares_the_contract(name):
    cls = load_class(name)
    assert issubclass(cls, Method)
    assert not (cls.needs_calibration and cls.needs_data)
    options = cls.__dataclass_fields__
    assert ("sparsity" in options) == (cls.sparsity_of is not None)
    assert cls.text_argument() in ("calibration", "data", None)
    assert not (cls.makes_smaller and cls.takes_allocation)

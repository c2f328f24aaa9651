"""Magnitude pruning in its three scopes."""

import pytest
import torch
from tests.whole_models import linear_weights, logits

from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import prune
from prunebook.methods.essential_sparsity import Magnitude
from prunebook.sparsity.patterns import Unstructured, count_removed


def test_one_matrix_by_hand():
    weight = torch.nn.Parameter(torch.tensor([[-5.0, 1, 0.5, 4], [0.25, -0.5, 8, 9]]))
    assert Magnitude(sparsity=0.5).prune_matrix(weight).tolist() == [[-5, 0, 0, 4], [0, 0, 8, 9]]
    assert Magnitude(sparsity=0.25, scope="row").prune_matrix(weight).tolist() == [
        [-5, 1, 0, 4],
        [0, -0.5, 8, 9],
    ]
    assert Magnitude(pattern="1:2").prune_matrix(weight).tolist() == [
        [-5, 0, 0, 4],
        [0, -0.5, 0, 9],
    ]
    assert weight[0, 1].item() == 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_model_scope_takes_the_small_layer_first(make_model, family):
    model = make_model(family)
    weights = linear_weights(model)
    smallest = min(weights, key=lambda name: weights[name].numel())
    for name, weight in weights.items():
        weight.copy_(torch.where(weight < 0, weight - 1, weight + 1))
        if name == smallest:
            weight.mul_(1e-3)
    total = sum(weight.numel() for weight in weights.values())
    report = prune(model, "magnitude", sparsity=weights[smallest].numel() / total, scope="model")
    assert report.layers == {name: float(name == smallest) for name in weights}
    assert report.sparsity == weights[smallest].numel() / total


@pytest.mark.parametrize("scope", ["layer", "row", "model"])
@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_counts_of_every_scope_are_exact(make_model, family, scope):
    model = make_model(family)
    before = {name: weight.clone() for name, weight in linear_weights(model).items()}
    report = prune(model, "magnitude", sparsity=0.37, scope=scope)
    after = linear_weights(model)
    if scope == "model":
        total = sum(weight.numel() for weight in after.values())
        assert sum(int((weight == 0).sum()) for weight in after.values()) == count_removed(
            total, 0.37
        )
    for name, weight in after.items():
        zero = weight == 0
        if scope == "layer":
            assert zero.sum() == count_removed(weight.numel(), 0.37)
        if scope == "row":
            assert (zero.sum(1) == count_removed(weight.shape[1], 0.37)).all()
        assert torch.equal(weight, before[name] * ~zero)
        if scope != "row":
            assert before[name][zero].abs().max() <= before[name][~zero].abs().min()
    assert verify(model, Unstructured(0.37, scope)).holds
    assert report.calibration is None


def test_a_rescaling_that_changes_nothing_changes_the_global_mask(make_model, tokens):
    model = make_model("llama")
    rescaled = make_model("llama")
    for block in rescaled.model.layers[:2]:
        block.mlp.up_proj.weight.data *= 8  # powers of two: exact
        block.mlp.down_proj.weight.data /= 8
    assert torch.equal(logits(model, tokens), logits(rescaled, tokens))
    for scope, same in (("layer", True), ("row", True), ("model", False)):
        for each in (model, rescaled):
            each.prunebook_reports = []
        masks = []
        for each in (make_model("llama"), make_model("llama")):
            each.load_state_dict((rescaled if masks else model).state_dict())
            prune(each, "magnitude", sparsity=0.5, scope=scope)
            masks.append(
                torch.cat([(weight == 0).flatten() for weight in linear_weights(each).values()])
            )
        assert torch.equal(*masks) is same


def test_masks_are_nested(make_model):
    previous = None
    for step in range(1, 10):
        model = make_model("llama")
        prune(model, "magnitude", sparsity=step / 10, scope="model")
        zero = torch.cat([(weight == 0).flatten() for weight in linear_weights(model).values()])
        assert previous is None or not (previous & ~zero).any()
        previous = zero


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either"),
        ({"sparsity": 1}, "sparsity 1 "),
        ({"sparsity": 0.5, "scope": "head"}, "scope 'head'"),
        ({"pattern": "3:2"}, "pattern '3:2'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Magnitude(**options)

"""Wanda on one matrix and through the blocks."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods import prune
from prunebook.methods.wanda import Wanda
from prunebook.models.anatomy import find_blocks, weight_of


def test_one_matrix_by_hand():
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2, 3, -4], [4, 3, 2, 1]]))
    inputs = torch.diag(torch.tensor([8.0, 1, 1, 0.5]))  # its columns have these norms
    # Scores [8, 2, 3, 2] and [32, 3, 2, 0.5].
    assert Wanda(sparsity=0.5).prune_matrix(weight, inputs).tolist() == [[1, 0, 3, 0], [4, 3, 0, 0]]
    assert Wanda(sparsity=0.25).prune_matrix(weight, inputs).tolist() == [
        [1, 0, 3, -4],
        [4, 3, 2, 0],
    ]
    assert Wanda(pattern="1:2").prune_matrix(weight, inputs).tolist() == [
        [1, 0, 3, 0],
        [4, 0, 2, 0],
    ]
    layer = Wanda(sparsity=0.5, scope="layer").prune_matrix(weight, inputs)
    assert layer.tolist() == [[1, 0, 3, 0], [4, 3, 0, 0]]
    layer = Wanda(sparsity=0.375, scope="layer").prune_matrix(weight, inputs)
    # three lowest of all: 0.5, then the ties 2, 2
    assert layer.tolist() == [[1, 0, 3, 0], [4, 3, 2, 0]]


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_the_model_is_pruned_as_its_matrices_one_block_after_the_other(make_model, tokens, family):
    model = make_model(family)
    by_hand = make_model(family)
    prune(model, "wanda", sparsity=0.5, calibration=tokens)
    for block in find_blocks(by_hand):
        seen = {}
        handles = [
            linear.register_forward_pre_hook(
                lambda _, inputs, to=seen, name=name: to.__setitem__(name, inputs[0])
            )
            for name, linear in block.linears.items()
        ]
        with torch.no_grad():
            by_hand(input_ids=tokens, use_cache=False)
        for handle in handles:
            handle.remove()
        for name, linear in block.linears.items():
            weight = weight_of(linear)
            weight.copy_(
                Wanda(sparsity=0.5).prune_matrix(weight, seen[name].reshape(-1, weight.shape[1]))
            )
    ours, theirs = (
        torch.cat([weight_of(x).flatten() for b in find_blocks(m) for x in b.linears.values()])
        for m in (model, by_hand)
    )
    assert (ours == theirs).float().mean() > 0.999  # rounding may swap a near tie


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either"),
        ({"sparsity": -0.1}, "sparsity -0.1"),
        ({"pattern": "2:0"}, "pattern '2:0'"),
        ({"sparsity": 0.5, "scope": "model"}, "scope 'model' is not allowed for wanda"),
        ({"sparsity": 0.5, "scope": "column"}, "scope 'column' is unknown"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Wanda(**options)

"""SparseGPT's options, and one matrix with given inputs."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.sparsegpt.column_sweep import sparsegpt_update
from prunebook.methods.sparsegpt.method import SparseGPT
from prunebook.sparsity.patterns import Unstructured


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -0.1}, "damping -0.1 is not allowed"),
        ({"block_size": 0}, "block_size 0 is not allowed"),
        ({"pattern": "4:8", "block_size": 100}, "use a positive multiple of 8"),
        ({}, "give either"),
        ({"sparsity": 1.0}, "sparsity 1.0"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "give either"),
    ],
)
def test_impossible_options_are_refused(options, message):
    if "damping" in options or options.get("block_size") == 0:
        options = {"sparsity": 0.5, **options}
    with pytest.raises(UserError, match=message):
        SparseGPT(**options)


def test_one_matrix_with_given_inputs():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 48, generator=generator)
    inputs = torch.randn(400, 48, generator=generator)
    parameter = torch.nn.Parameter(weight)
    new = SparseGPT(sparsity=0.5).prune_matrix(parameter, inputs)
    expected, keep = sparsegpt_update(weight, inputs.T @ inputs, Unstructured(0.5, "layer"))
    assert torch.equal(new != 0, keep)
    torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-5)
    assert not new.requires_grad
    frozen = SparseGPT(sparsity=0.5, update=False).prune_matrix(parameter, inputs)
    assert torch.equal(frozen, weight * keep)
    narrow = SparseGPT(pattern="2:4").prune_matrix(weight.bfloat16(), inputs)
    assert narrow.dtype == torch.bfloat16
    assert ((narrow == 0).reshape(-1, 4).sum(1) == 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": "1e-2"}, "damping '1e-2' is not allowed; use a fraction >= 0, e.g. 0.01"),
        ({"block_size": "128"}, "block_size '128' is not allowed; use a positive multiple of 1"),
        ({"update": "maybe"}, "update 'maybe' is not allowed; use True or False"),
    ],
)
def test_options_of_the_wrong_type_are_refused(options, message):
    with pytest.raises(UserError) as caught:
        SparseGPT(sparsity=0.5, **options)
    assert str(caught.value) == message


def test_a_pattern_object_with_another_scope_is_refused():
    with pytest.raises(UserError, match="scope 'row' is not allowed for sparsegpt; use 'layer'"):
        SparseGPT(pattern=Unstructured(0.5, "row"))

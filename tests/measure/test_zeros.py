"""Zeros counted exactly, and checked against a pattern."""

import pytest
import torch

from prunebook.measure.zeros import count_zeros, verify
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.sparsity.patterns import Unstructured


@pytest.fixture
def pruned(make_model):
    """A model with exactly the first two of every four weights at zero, in all of its linears."""
    model = make_model("llama")
    for block in find_blocks(model):
        for linear in block.linears.values():
            weight_of(linear).view(-1, 4)[:, :2] = 0
    return model


def test_counts_are_exact(pruned):
    counts = count_zeros(pruned)
    assert len(counts) == 21
    assert all(2 * zeros == size for zeros, size in counts.values())


@pytest.mark.parametrize(
    "pattern", ["2:4", "4:8", 0.5, 0, Unstructured(0.5, "layer"), Unstructured(0.5, "model")]
)
def test_what_the_zeros_satisfy_holds(pruned, pattern):
    found = verify(pruned, pattern)
    assert found.holds
    assert found.sparsity == 0.5
    assert set(found.layers.values()) == {0.5}


def test_violations_name_the_layer_and_count_its_groups(pruned):
    linear = pruned.model.layers[1].mlp.up_proj
    linear.weight.data[3, :8] = 1.0
    for pattern, broken in (("2:4", 2), ("4:8", 1), (0.5, 1), (Unstructured(0.5, "layer"), 1)):
        found = verify(pruned, pattern)
        assert not found.holds
        assert {name.rsplit(".", 1)[1] for name in found.violations} == {"up_proj"}
        assert list(found.violations.values()) == [broken]
    assert verify(pruned, Unstructured(0.5, "model")).violations == {"model": 1}


def test_one_weight_alone_is_not_a_pattern(make_model):
    model = make_model("gpt2")
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = 0
    found = verify(model, "2:4")
    assert len(found.violations) == len(found.layers)
    assert torch.tensor(list(found.layers.values())).sum() == pytest.approx(1 / (32 * 128))

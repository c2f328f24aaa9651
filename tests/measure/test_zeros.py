"""Zeros counted exactly, and checked against a pattern."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.measure.zeros import count_zeros, verify
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.sparsity.patterns import NofM, Unstructured


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


def zero_fraction(model, fraction_of_columns):
    for block in find_blocks(model):
        for linear in block.linears.values():
            weight = weight_of(linear)
            weight[:, : int(weight.shape[1] * fraction_of_columns)] = 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_verify_counts_real_zeros(make_model, family):
    model = make_model(family)
    assert verify(model, 0).sparsity == 0
    zero_fraction(model, 0.5)
    result = verify(model, 0.5)
    assert result.holds
    assert result.sparsity == 0.5
    assert set(result.layers.values()) == {0.5}
    assert not verify(model, 0.53).holds
    # The first half of a row is zero: its second half breaks 2:4 in every group.
    width = {name: weight_of(x).shape for b in find_blocks(model) for name, x in b.linears.items()}
    assert verify(model, "2:4").violations == {
        n: rows * columns // 8 for n, (rows, columns) in width.items()
    }


def test_verify_names_the_layer_that_breaks_the_pattern(make_model):
    model = make_model("llama")
    for block in find_blocks(model):
        for linear in block.linears.values():
            weight_of(linear).view(-1, 4)[:, 1:3] = 0
    assert verify(model, "2:4").holds
    assert verify(model, NofM(4, 8)).holds
    model.model.layers[1].mlp.up_proj.weight.data[3, 4:8] = 1
    result = verify(model, "2:4")
    assert result.violations == {"model.layers.1.mlp.up_proj": 1}
    assert verify(model, Unstructured(0.5, "row")).violations == {"model.layers.1.mlp.up_proj": 1}
    assert verify(model, Unstructured(0.5, "layer")).violations == {"model.layers.1.mlp.up_proj": 1}
    assert verify(model, Unstructured(0.5, "model")).violations == {"model": 1}
    assert verify(model, Unstructured(0.49, "model")).holds


@pytest.mark.parametrize("pattern", ["5:4", "0.5", 1.0, True])
def test_verify_refuses_what_is_no_pattern(make_model, pattern):
    with pytest.raises(UserError, match="not allowed"):
        verify(make_model("llama"), pattern)

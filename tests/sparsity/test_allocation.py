"""Allocations: counts met to the weight, largest remainders, shifted rates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import Magnitude, SparseGPT, Wanda, prune
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.sparsity.allocation import (
    from_rates,
    largest_remainders,
    linear_sizes,
    shifted_rates,
    uniform,
)
from prunebook.sparsity.patterns import ExactCount, NofM, Unstructured, keep_mask


def names_of(model):
    return [name for block in find_blocks(model) for name in block.linears]


def test_budgets_sum_to_the_global_count(make_model):
    model = make_model("llama")
    rates = {name: 0.5 + 0.013 * (i % 5) for i, name in enumerate(names_of(model))}
    budgets = from_rates(model, rates)
    sizes = {name: budget.size for name, budget in budgets.items()}
    assert sum(b.removed for b in budgets.values()) == int(
        sum(sizes[n] * r for n, r in rates.items()) + 1e-6
    )
    for name, budget in budgets.items():
        assert 0 <= budget.removed - int(sizes[name] * rates[name]) <= 1


@given(st.integers(0, 60), st.sampled_from(["row", "layer"]), st.integers(0, 2**31))
def test_a_budget_removes_its_count_evenly(removed, scope, seed):
    scores = torch.rand(6, 10, generator=torch.Generator().manual_seed(seed))
    gone = ~keep_mask(scores, ExactCount(removed, 60, scope))
    assert gone.sum() == removed
    if scope == "row":
        assert gone.sum(1).max() - gone.sum(1).min() <= 1
        for row, lost in zip(scores, gone, strict=True):
            assert row[lost].max() <= row[~lost].min() if 0 < lost.sum() < 10 else True
    else:
        assert removed in (0, 60) or scores[gone].max() <= scores[~gone].min()


def test_a_budget_is_for_its_layer_alone():
    with pytest.raises(UserError, match="a count for 60 weights does not fit a layer of 50"):
        keep_mask(torch.rand(5, 10), ExactCount(3, 60))
    with pytest.raises(UserError, match="removed 61 is not allowed for a layer of 60 weights"):
        ExactCount(61, 60)
    with pytest.raises(UserError, match="scope 'model' is not allowed for the count of one layer"):
        ExactCount(1, 60, "model")


@pytest.mark.parametrize(
    "method", [Magnitude(sparsity=0.5), Wanda(sparsity=0.5), SparseGPT(sparsity=0.5, block_size=20)]
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prune_meets_an_allocation_to_the_weight(make_model, tokens, family, method):
    model = make_model(family)
    rates = {name: 0.3 + 0.1 * (i % 4) for i, name in enumerate(names_of(model))}
    report = prune(model, method, calibration=tokens, allocation=rates)
    sizes = {
        name: weight_of(x).numel()
        for block in find_blocks(model)
        for name, x in block.linears.items()
    }
    for name, sparsity in report.layers.items():
        assert sparsity == pytest.approx(rates[name], abs=1 / sizes[name] + 1e-12)
    total = sum(sizes.values())
    assert round(report.sparsity * total) == int(
        sum(rates[n] * size for n, size in sizes.items()) + 1e-6
    )


def test_sizes_are_those_of_the_linears(make_model):
    model = make_model("gpt2")
    sizes = linear_sizes(model)
    assert list(sizes) == names_of(model)
    assert sum(sizes.values()) == sum(
        weight_of(model.get_submodule(name)).numel() for name in sizes
    )


def test_the_uniform_allocation_is_the_plain_method(make_model, tokens):
    plain = make_model("llama")
    allocated = make_model("llama")
    prune(plain, "wanda", sparsity=0.5, calibration=tokens)
    rates = dict.fromkeys(names_of(allocated), 0.5)
    prune(allocated, "wanda", sparsity=0.5, calibration=tokens, allocation=rates)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, allocated.state_dict()[name])
    assert uniform(plain, NofM(2, 4)) == dict.fromkeys(names_of(plain), NofM(2, 4))


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        (
            Wanda(sparsity=0.5),
            {"a": 0.5},
            "one rate for each linear of the blocks; a is missing or unknown",
        ),
        (
            Wanda(sparsity=0.5),
            {"model.layers.0.mlp.up_proj": 1.5},
            r"rate 1.5 of .*up_proj is not allowed",
        ),
        (Wanda(pattern="2:4"), {}, "does not go with the pattern 2:4"),
        (Magnitude(sparsity=0.5, scope="model"), {}, "does not go with the pattern 0.5 per model"),
    ],
)
def test_a_bad_allocation_is_refused_and_changes_nothing(
    make_model, tokens, method, change, message
):
    model = make_model("llama")
    rates = dict.fromkeys(names_of(model), 0.5) | change
    with pytest.raises(UserError, match=message):
        prune(model, method, calibration=tokens, allocation=rates)
    assert verify(model, Unstructured(0.0)).sparsity == 0


def test_shifted_rates_by_hand():
    share = np.array([0.25, 0.75])
    # both rates rise by 0.1
    assert shifted_rates(np.array([0.2, 0.4]), share, 0.45, 1.0) == pytest.approx([0.3, 0.5])
    # the second is clipped to 0.5, and the first makes up for it
    assert shifted_rates(np.array([0.2, 0.9]), share, 0.475, 0.5) == pytest.approx([0.4, 0.5])


def test_largest_remainders_by_hand():
    assert largest_remainders(np.array([1.5, 2.2, 0.3, 1.0]), 5).tolist() == [2, 2, 0, 1]
    # ties: lowest index first
    assert largest_remainders(np.array([0.5, 0.5, 0.5, 0.5]), 2).tolist() == [1, 1, 0, 0]
    # 28.999999999999996
    assert largest_remainders(np.array([0.29 * 100, 0.0]), 29).tolist() == [29, 0]

"""Allocations: OWL's worked examples, means met to rounding, budgets met to the weight."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.measure.zeros import verify
from prunebook.methods import Magnitude, SparseGPT, Wanda, prune
from prunebook.methods.besa.learned_sparsity import counts_from_rates
from prunebook.methods.owl.outliers import outliers, owl_rates
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.sparsity.allocation import from_rates, largest_remainders, uniform
from prunebook.sparsity.patterns import ExactCount, NofM, Unstructured, keep_mask


def names_of(model):
    return [name for block in find_blocks(model) for name in block.linears]


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ((1, 3, 5), (0.78, 0.70, 0.62)),
        ((0, 0, 0, 4), (0.74, 0.74, 0.74, 0.58)),
        ((2, 2, 2), (0.7, 0.7, 0.7)),
    ],
)
def test_worked_examples(distribution, expected):
    assert owl_rates(distribution, 0.7) == pytest.approx(expected, abs=1e-12)


distributions = st.lists(st.floats(0, 50), min_size=1, max_size=12)


@given(distributions, st.floats(0, 0.999), st.floats(0, 0.6))
def test_the_mean_is_the_target_and_no_rate_leaves_its_range(distribution, sparsity, spread):
    rates = owl_rates(distribution, sparsity, spread)
    assert sum(rates) / len(rates) == pytest.approx(sparsity, abs=1e-12)
    assert min(rates) >= 0
    assert max(rates) <= max(0.99, (1 + sparsity) / 2)
    order = sorted(range(len(rates)), key=distribution.__getitem__)
    # outliers protect
    assert all(rates[a] >= rates[b] - 1e-12 for a, b in itertools.pairwise(order))


@given(distributions, st.floats(0.1, 9), st.floats(-5, 5))
def test_rates_ignore_positive_affine_maps(distribution, factor, shift):
    if max(distribution) - min(distribution) < 1e-3:
        distribution = [0.0, *distribution, 60.0]
    mapped = [factor * value + shift for value in distribution]
    assert owl_rates(mapped, 0.6) == pytest.approx(owl_rates(distribution, 0.6), abs=1e-9)


def test_sizes_weigh_the_mean():
    rates = owl_rates([0, 4], 0.5, 0.1, sizes=[3, 1])
    assert rates == pytest.approx([0.55, 0.35])
    assert (3 * rates[0] + rates[1]) / 4 == pytest.approx(0.5)


def test_a_rate_beyond_its_range_is_clipped_and_the_rest_make_up_for_it():
    assert owl_rates([0, 4], 0.9, 0.2) == pytest.approx([0.99, 0.81])
    assert owl_rates([0, 0, 4], 0.1, 0.3) == pytest.approx([0.15, 0.15, 0.0])


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


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_outliers_are_those_of_the_dense_model(make_model, tokens, family):
    model = make_model(family)
    seen = {}
    handles = [
        linear.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.__setitem__(name, inputs[0])
        )
        for block in find_blocks(model)
        for name, linear in block.linears.items()
    ]
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    by_block = outliers(model, tokens, 2.0)
    by_linear = outliers(model, tokens, 2.0, by="linear")
    for block in find_blocks(model):
        scores = {
            name: weight_of(linear).double().abs() * seen[name].double().flatten(0, -2).norm(dim=0)
            for name, linear in block.linears.items()
        }
        together = torch.cat([score.flatten() for score in scores.values()])
        for name, score in scores.items():
            assert by_linear[name] == pytest.approx(
                100 * (score > 2 * score.mean()).double().mean().item(), abs=1e-9
            )
            assert by_block[name] == pytest.approx(
                100 * (together > 2 * together.mean()).double().mean().item()
            )


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
    with pytest.raises(UserError, match="a budget for 60 weights does not fit a layer of 50"):
        keep_mask(torch.rand(5, 10), ExactCount(3, 60))
    with pytest.raises(UserError, match="removed 61 is not allowed for a layer of 60 weights"):
        ExactCount(61, 60)
    with pytest.raises(UserError, match="scope 'model' is not allowed for the budget of one layer"):
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


@pytest.mark.parametrize(
    ("arguments", "message"), [((1.0,), "sparsity 1.0"), ((0.5, -0.1), "spread -0.1")]
)
def test_impossible_targets_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        owl_rates([1, 2], *arguments)


def test_an_unknown_granularity_is_refused(make_model, tokens):
    with pytest.raises(UserError, match="by 'row' is unknown; use 'block' or 'linear'"):
        outliers(make_model("llama"), tokens, by="row")


def test_largest_remainders_by_hand():
    assert largest_remainders(np.array([1.5, 2.2, 0.3, 1.0]), 5).tolist() == [2, 2, 0, 1]
    # ties: lowest index first
    assert largest_remainders(np.array([0.5, 0.5, 0.5, 0.5]), 2).tolist() == [1, 1, 0, 0]
    # 28.999999999999996
    assert largest_remainders(np.array([0.29 * 100, 0.0]), 29).tolist() == [29, 0]


def test_counts_from_rates_by_hand():
    # 0.25 of 8 and 0.75 of 4 are 2 and 3; two more of twelve shift both rates by a sixth.
    assert counts_from_rates([0.25, 0.75], [8, 4], 5).tolist() == [2, 3]
    assert counts_from_rates([0.25, 0.75], [8, 4], 7).tolist() == [3, 4]
    assert counts_from_rates([0.25, 0.75], [8, 4], 0).tolist() == [0, 0]
    assert counts_from_rates([0.25, 0.75], [8, 4], 12).tolist() == [8, 4]
    # sixths add up to less than 1
    assert counts_from_rates([0, 0, 0, 0], [1, 1, 3, 1], 6).tolist() == [1, 1, 3, 1]
    with pytest.raises(UserError, match="removed 13 is not allowed for 12 weights"):
        counts_from_rates([0.25, 0.75], [8, 4], 13)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 40)), min_size=1, max_size=30),
    st.floats(0, 1),
)
def test_counts_from_rates_meet_the_sum_in_the_order_of_the_rates(groups, fraction):
    rates, sizes = zip(*groups, strict=True)
    removed = int(fraction * sum(sizes))
    counts = counts_from_rates(rates, sizes, removed)
    assert counts.sum() == removed
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    near = sorted(zip(rates, counts / np.array(sizes), 1 / np.array(sizes), strict=True))
    assert all(
        a <= b + step_a + step_b for (_, a, step_a), (_, b, step_b) in itertools.pairwise(near)
    )

"""OWL's outliers and rates: worked examples, means met to rounding, the dense model's outliers."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.methods.owl.outliers import outlier_percentage, outliers, owl_rates
from prunebook.models.anatomy import find_blocks, weight_of


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


def test_the_percentage_is_of_all_linears_together():
    scores = [torch.tensor([[1.0, 1]]), torch.tensor([[1.0, 9]])]
    assert outlier_percentage(scores, 2.0) == 25.0
    assert outlier_percentage(scores[:1], 2.0) == 0.0


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


@pytest.mark.parametrize(
    ("arguments", "message"), [((1.0,), "sparsity 1.0"), ((0.5, -0.1), "spread -0.1")]
)
def test_impossible_targets_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        owl_rates([1, 2], *arguments)


def test_an_unknown_granularity_is_refused(make_model, tokens):
    with pytest.raises(UserError, match="granularity 'row' is unknown; use 'block' or 'layer'"):
        outliers(make_model("llama"), tokens, granularity="row")

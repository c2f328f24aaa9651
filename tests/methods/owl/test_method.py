"""OWL: rates from outliers, any base, the global count to the weight."""

import pytest
import torch

from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import OWL, prune
from prunebook.methods.owl.outliers import outliers
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.sparsity.patterns import NofM, Unstructured

BASES = ("wanda", "sparsegpt", "magnitude", "ria")


def sizes_of(model):
    return {
        name: weight_of(x).numel()
        for block in find_blocks(model)
        for name, x in block.linears.items()
    }


@pytest.mark.parametrize("granularity", ["block", "layer"])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_global_budget_is_met_to_the_weight(make_model, tokens, family, base, granularity):
    model = make_model(family)
    method = OWL(sparsity=0.6, base=base, granularity=granularity, multiplier=2.0)
    report = prune(model, method, calibration=tokens)
    total = sum(sizes_of(model).values())
    assert round(report.sparsity * total) == int(total * 0.6 + 1e-6)
    assert verify(model, Unstructured(0.6, "model")).holds
    assert len({round(value, 2) for value in report.layers.values()}) > 1


def test_blocks_with_more_outliers_lose_less(make_model, tokens):
    model = make_model("llama")
    distribution = outliers(model, tokens, 2.0)
    method = OWL(sparsity=0.6, multiplier=2.0)
    rates = method.rates(model, distribution)
    ordered = sorted(rates, key=distribution.__getitem__)
    assert rates[ordered[0]] > rates[ordered[-1]]
    assert rates[ordered[0]] - rates[ordered[-1]] == pytest.approx(0.16)


@pytest.mark.parametrize("base", BASES)
def test_without_spread_it_is_the_plain_method(make_model, tokens, base):
    plain = make_model("llama")
    owl = make_model("llama")
    prune(plain, base, sparsity=0.5, calibration=tokens)
    prune(owl, "owl", sparsity=0.5, base=base, spread=0, calibration=tokens)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, owl.state_dict()[name])


def test_rounding_down_in_every_row_is_the_official_way(make_model, tokens):
    model = make_model("llama")
    method = OWL(sparsity=0.6, multiplier=2.0, exact_count=False)
    rates = method.rates(model, outliers(model, tokens, 2.0))
    prune(model, method, calibration=tokens)
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            assert (
                (weight_of(linear) == 0).sum(1)
                == int(weight_of(linear).shape[1] * rates[name] + 1e-9)
            ).all()


def test_mixed_n_of_m_keeps_its_average(make_model, tokens):
    model = make_model("llama")
    method = OWL(pattern="4:8", multiplier=2.0)
    targets = method.targets(model, outliers(model, tokens, 2.0))
    rates = method.rates(model, outliers(model, tokens, 2.0))
    sizes = sizes_of(model)
    assert sum(sizes[name] * pattern.n for name, pattern in targets.items()) == 4 * sum(
        sizes.values()
    )
    assert all(abs(targets[name].n - 8 * (1 - rate)) < 1 for name, rate in rates.items())
    assert len({pattern.n for pattern in targets.values()}) > 1
    report = prune(model, method, calibration=tokens)
    assert report.pattern == "4:8 on average"
    assert report.sparsity == pytest.approx(0.5)
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            groups = (weight_of(linear) != 0).reshape(-1, 8).sum(1)
            assert (groups == targets[name].n).all()
    assert OWL(pattern="4:8", spread=0).targets(model, outliers(model, tokens)) == dict.fromkeys(
        targets, NofM(4, 8)
    )


def test_a_spread_that_empties_groups_is_refused(make_model, tokens):
    with pytest.raises(
        UserError,
        match="spread leaves no weight of a group, or all 4; use a smaller spread for 2:4",
    ):
        prune(
            make_model("llama"), "owl", pattern="2:4", spread=3, multiplier=2.0, calibration=tokens
        )

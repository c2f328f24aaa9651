"""`prune` for every method, pattern and kind of architecture: exact zeros, nothing else touched."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tests.refusals import refused_in_one_line
from tests.whole_models import linear_weights, logits

from prunebook.errors import UserError
from prunebook.measure.zeros import verify
from prunebook.methods import RIA, DSnoT, Magnitude, SparseGPT, Wanda, prune
from prunebook.methods.base import Method

FAMILIES = ("llama", "qwen3", "opt", "gpt2")
METHODS = ("magnitude", "wanda", "ria", "dsnot", "sparsegpt")
TARGETS = ({"sparsity": 0.5}, {"pattern": "2:4"}, {"pattern": "4:8"})
target_id = {"ids": lambda target: str(next(iter(target.values())))}


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("target", TARGETS, **target_id)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_zeros_are_exact_and_the_rest_is_untouched(make_model, tokens, method, family, target):
    model = make_model(family)
    before = state(model)
    weights_before = {n: w.clone() for n, w in linear_weights(model).items()}
    report = prune(model, method, calibration=tokens, **target)
    assert report.sparsity == 0.5
    assert report.layers == dict.fromkeys(weights_before, 0.5)
    result = verify(model, target.get("pattern") or 0)
    assert result.holds
    assert result.sparsity == 0.5
    pruned = {f"{name}.weight" for name in weights_before}
    for name, tensor in model.state_dict().items():
        if name not in pruned:
            assert torch.equal(tensor, before[name]), name
    changed = 0
    for name, weight in linear_weights(model).items():
        kept = weight != 0
        changed += int((weight != weights_before[name])[kept].sum())
    assert (changed == 0) is (method != "sparsegpt")
    assert not torch.equal(logits(model, tokens), logits(make_model(family), tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_unstructured_groups_are_those_of_the_method(make_model, tokens, family):
    model = make_model(family)
    prune(model, "wanda", calibration=tokens, sparsity=0.3)
    for weight in linear_weights(model).values():
        assert ((weight == 0).sum(1) == int(weight.shape[1] * 0.3)).all()
    model = make_model(family)
    prune(model, SparseGPT(sparsity=0.3, block_size=20), calibration=tokens)
    for weight in linear_weights(model).values():
        for block in weight.split(20, dim=1):
            assert (block == 0).sum() == int(block.numel() * 0.3)


@pytest.mark.parametrize("method", METHODS)
def test_name_and_object_do_the_same(make_model, tokens, method):
    cls = {
        "magnitude": Magnitude,
        "wanda": Wanda,
        "ria": RIA,
        "dsnot": DSnoT,
        "sparsegpt": SparseGPT,
    }[method]
    by_name = make_model("llama")
    by_object = make_model("llama")
    first = prune(by_name, method, calibration=tokens, sparsity=0.4)
    second = prune(by_object, cls(sparsity=0.4), calibration=tokens)
    assert (first.method, first.options, first.pattern) == (
        second.method,
        second.options,
        second.pattern,
    )
    assert first.method == method
    for name, tensor in by_name.state_dict().items():
        assert torch.equal(tensor, by_object.state_dict()[name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "ria", "dsnot"])
def test_sparsity_zero_changes_nothing(make_model, tokens, method, family):
    model = make_model(family)
    expected = logits(model, tokens)
    assert prune(model, method, calibration=tokens, sparsity=0).sparsity == 0
    assert torch.equal(logits(model, tokens), expected)


def test_sparsegpt_at_sparsity_zero_changes_nothing(make_model, tokens):
    model = make_model("llama")
    before = state(model)
    prune(model, "sparsegpt", calibration=tokens, sparsity=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_without_update_sparsegpt_keeps_the_survivors(make_model, tokens):
    model = make_model("llama")
    before = {name: weight.clone() for name, weight in linear_weights(model).items()}
    prune(model, "sparsegpt", calibration=tokens, sparsity=0.5, update=False)
    for name, weight in linear_weights(model).items():
        assert torch.equal(weight, before[name] * (weight != 0))
        assert (weight == 0).sum() == weight.numel() // 2


def test_the_update_is_worth_it(make_model, tokens):
    dense = logits(make_model("llama"), tokens)
    errors = {}
    for update in (True, False):
        model = make_model("llama")
        prune(model, "sparsegpt", calibration=tokens, sparsity=0.3, update=update)
        errors[update] = (logits(model, tokens) - dense).norm()
    assert errors[True] < errors[False]


def test_report_says_what_happened(make_model, tokens):
    model = make_model("llama")
    report = prune(model, "wanda", calibration=tokens, pattern="2:4")
    assert model.prunebook_reports == [report]
    record = json.loads(json.dumps(report.to_dict()))
    assert record["method"] == "wanda"
    assert record["pattern"] == "2:4"
    assert record["options"] == {
        "sparsity": None,
        "pattern": "2:4",
        "scope": "row",
        "precision": "exact",
    }
    assert record["calibration"] == {"samples": 7, "length": 16}
    assert 0 < record["seconds"] < 60
    assert 1e6 < record["peak_memory"] < 1e11
    assert "resident memory" in record["memory_kind"]
    second = prune(model, "magnitude", sparsity=0.75)
    assert model.prunebook_reports == [report, second]
    assert second.sparsity == 0.75


def test_narrow_weights_stay_narrow(make_model, tokens):
    for method in METHODS:
        model = make_model("llama").to(torch.bfloat16)
        report = prune(model, method, calibration=tokens, pattern="2:4")
        assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
        assert report.sparsity == 0.5


def test_fast_precision_prunes_almost_the_same_weights(make_model, tokens):
    masks = {}
    for precision in ("exact", "fast"):
        model = make_model("llama")
        prune(model, "wanda", calibration=tokens, sparsity=0.5, precision=precision)
        masks[precision] = torch.cat(
            [(weight == 0).flatten() for weight in linear_weights(model).values()]
        )
    agreement = (masks["exact"] == masks["fast"]).float().mean()
    assert 0.97 < agreement < 1


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "compresso",
            {},
            r"method 'compresso' trains weights on its text; give it as data=\.\.\., not c",
        ),
        (
            "compresso",
            {"calibration": None},
            "method 'compresso' needs data; make it with training",
        ),
        (
            "wanda",
            {"sparsity": 0.5, "data": torch.zeros(2, 8, dtype=torch.int64)},
            "method 'wanda' trains nothing; leave data out",
        ),
        (
            "wanda",
            {"sparsity": 0.5, "calibration": None},
            "method 'wanda' needs calibration tokens",
        ),
        ("wanda", {"sparsity": 0.5, "precision": "slow"}, "precision 'slow' is unknown"),
        ("wanda", {}, "give either"),
        ("sparsegpt", {"pattern": "3:2"}, "pattern '3:2' is not allowed"),
        (
            "wanda",
            {"sparsity": 0.5, "calibration": torch.full((2, 8), 100)},
            "token id 100, outside the vocabulary",
        ),
        (
            "wanda",
            {"sparsity": 0.5, "calibration": torch.rand(2, 8)},
            "calibration must be an int64 tensor",
        ),
        ("magnitude", {"pattern": "2:5"}, "has 32 inputs, which pattern 2:5 does not divide"),
    ],
)
def test_bad_requests_are_refused_and_change_nothing(make_model, tokens, method, options, message):
    model = make_model("llama")
    before = state(model)
    with refused_in_one_line(message):
        prune(model, method, **{"calibration": tokens, **options})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_a_width_that_does_not_divide_is_found_before_anything_changes(make_model, tokens, method):
    model = make_model("llama", intermediate_size=50)  # the attention's width 32 does divide
    before = state(model)
    with pytest.raises(
        UserError, match=r"model\.layers\.0\.mlp\.down_proj has 50 inputs, which pattern 2:4"
    ):
        prune(model, method, calibration=tokens, pattern="2:4")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"scope": "model"}])
def test_weights_that_are_not_finite_are_named_before_anything_changes(make_model, options, value):
    model = make_model("llama")
    model.model.layers[2].mlp.down_proj.weight.data[3, 4] = value
    before = state(model)
    with pytest.raises(
        UserError, match=r"weights of model\.layers\.2\.mlp\.down_proj hold NaN or infinity"
    ):
        prune(model, "magnitude", sparsity=0.5, **options)
    assert all(
        torch.equal(t.nan_to_num(), before[n].nan_to_num()) for n, t in model.state_dict().items()
    )


@pytest.mark.parametrize("method", ["wanda", "ria", "dsnot", "sparsegpt", "owl", "besa"])
def test_activations_that_are_not_finite_are_named(make_model, tokens, method):
    model = make_model("llama")
    model.model.embed_tokens.weight.data[tokens[6, 3]] = float("nan")
    with pytest.raises(
        UserError, match=r"activations of model\.layers\.0\.self_attn\..* hold NaN or infinity"
    ):
        prune(model, method, calibration=tokens, sparsity=0.5)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UserError, match="Linear has no recognisable decoder blocks"):
        prune(torch.nn.Linear(4, 4), "magnitude", sparsity=0.5)


def test_the_device_where_blocks_compute_can_be_named(make_model, tokens):
    here = make_model("llama")
    named = make_model("llama")
    prune(here, "sparsegpt", sparsity=0.5, calibration=tokens)
    prune(named, "sparsegpt", sparsity=0.5, calibration=tokens, device="cpu")
    for ours, theirs in zip(here.parameters(), named.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(UserError, match="device 'cuda:99' is not here"):
        prune(named, "sparsegpt", sparsity=0.5, calibration=tokens, device="cuda:99")


@pytest.mark.parametrize("allocation", [[0.5], 0.5, "half", torch.ones(3)])
def test_an_allocation_that_is_no_mapping_is_one_line(make_model, tokens, allocation):
    model = make_model("llama")
    before = state(model)
    with pytest.raises(UserError) as caught:
        prune(model, "wanda", sparsity=0.5, calibration=tokens, allocation=allocation)
    assert str(caught.value) == (
        f"allocation is a {type(allocation).__name__}; use a mapping from the name of each linear "
        "to its sparsity"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_allocation_needs_a_method_with_a_pattern(make_model):
    @dataclass(frozen=True)
    class Patternless(Method):
        needs_calibration: ClassVar[bool] = False
        takes_allocation: ClassVar[bool] = True
        sparsity_of: ClassVar[str | None] = None

        def prune(self, model, text, *, targets=None, progress=None, device=None):
            raise AssertionError("is refused before")

    with pytest.raises(UserError) as caught:
        prune(make_model("llama"), Patternless(), allocation={})
    assert str(caught.value) == (
        "an allocation does not go with the pattern None; use a sparsity per row or layer"
    )

"""Trials that pages share: the same result, and another identity for whatever changes it."""

import dataclasses

import pytest
import torch

from prunebook.experiments import trial_cache, trials
from prunebook.experiments.compare import compare, sweep
from prunebook.experiments.trial_cache import model_identity, trial_identity
from prunebook.measure.baseline import dense_baseline
from prunebook.measure.footprint import Footprint
from prunebook.methods import OWL, Magnitude, SparseGPT, Wanda

TOKENS = torch.arange(64).view(4, 16)
ASKED = {"precision": "exact"}


@pytest.fixture
def pruned(monkeypatch):
    """The methods that were really run, one entry a time."""
    calls = []
    original = trials.prune

    def prune(model, method, **options):
        calls.append(type(method).__name__)
        return original(model, method, **options)

    monkeypatch.setattr(trials, "prune", prune)
    return calls


def test_a_trial_is_made_once_and_comes_back_the_same(make_model, cache, other_work, pruned):
    other_work(0.0)
    model = make_model("llama")
    dense = dense_baseline(model, TOKENS, "exact")
    methods = {"a": Wanda(sparsity=0.5), "b": Magnitude(sparsity=0.5)}
    settings = {
        "calibrations": [TOKENS],
        "held_out": TOKENS,
        "dense": dense,
        "reuse": True,
        "progress": False,
    }
    first = compare(model, methods, **settings)
    again = compare(model, {"c": Wanda(sparsity=0.5), "d": Magnitude(sparsity=0.5)}, **settings)
    assert pruned == ["Wanda", "Magnitude"]
    for one, other in zip(first.rows()[1:], again.rows()[1:], strict=True):
        assert {**other, "label": one["label"]} == one
    assert torch.equal(first.trials[0].measurement.nll, again.trials[0].measurement.nll)
    assert again.trials[0].report.layers == first.trials[0].report.layers
    compare(model, {"e": Wanda(sparsity=0.25)}, **settings)
    compare(model, {"f": Wanda(sparsity=0.5)}, **{**settings, "reuse": False})
    assert pruned == ["Wanda", "Magnitude", "Wanda", "Wanda"]


def test_a_trial_whose_times_were_disturbed_is_not_kept(make_model, cache, other_work, pruned):
    other_work(1.0)
    model = make_model("llama")
    dense = dense_baseline(model, TOKENS, "exact")
    for _ in range(2):
        compare(
            model,
            {"a": Magnitude(sparsity=0.5)},
            calibrations=[],
            held_out=TOKENS,
            dense=dense,
            reuse=True,
            progress=False,
        )
    assert pruned == ["Magnitude", "Magnitude"]


def test_pages_share_sweeps_and_other_callers_do_not(make_model, cache, pruned, monkeypatch):
    model = make_model("llama")
    settings = {"calibration": TOKENS, "held_out": TOKENS, "precision": "exact", "progress": False}
    for _ in range(2):
        sweep(model, {"a": Wanda(sparsity=0.5)}, **settings)
    assert pruned == ["Wanda", "Wanda"]
    monkeypatch.setenv("PRUNEBOOK_PROFILE", "quick")
    first = sweep(model, {"a": Wanda(sparsity=0.5)}, **settings)
    second = sweep(model, {"b": Wanda(sparsity=0.5)}, **settings)
    assert pruned == ["Wanda"] * 3
    assert (first["a"] == second["b"]).all()


def test_a_sweep_takes_what_a_comparison_has_measured(make_model, cache, other_work, pruned):
    other_work(1.0)  # times do not matter to it
    model = make_model("llama")
    shared = {"held_out": TOKENS, "reuse": True, "progress": False}
    dense = dense_baseline(model, TOKENS, "exact")
    compared = compare(
        model, {"a": Wanda(sparsity=0.5)}, calibrations=[TOKENS], dense=dense, **shared
    )
    swept = sweep(
        model, {"b": Wanda(sparsity=0.5)}, calibration=TOKENS, precision="exact", **shared
    )
    assert pruned == ["Wanda"]
    assert (swept["b"] == compared.nll("a")).all()


def test_what_a_trial_depends_on_is_in_its_identity(make_model):
    of_model = model_identity(make_model("llama"))
    changed = make_model("llama")
    changed.lm_head.weight.data[0, 0] += 1
    wanda = Wanda(sparsity=0.5)
    identities = [
        trial_identity(of_model, wanda, TOKENS, TOKENS, ASKED),
        trial_identity(model_identity(changed), wanda, TOKENS, TOKENS, ASKED),
        trial_identity(of_model, Wanda(sparsity=0.25), TOKENS, TOKENS, ASKED),
        trial_identity(of_model, Wanda(pattern="2:4"), TOKENS, TOKENS, ASKED),
        trial_identity(of_model, SparseGPT(sparsity=0.5), TOKENS, TOKENS, ASKED),
        trial_identity(of_model, wanda, TOKENS + 1, TOKENS, ASKED),
        trial_identity(of_model, wanda, TOKENS, TOKENS + 1, ASKED),
        trial_identity(of_model, wanda, TOKENS.view(8, 8), TOKENS, ASKED),
        trial_identity(of_model, wanda, None, TOKENS, ASKED),
        trial_identity(of_model, wanda, TOKENS, TOKENS, {"precision": "fast"}),
    ]
    assert len({tuple(identity) for identity in identities}) == len(identities)
    assert (
        trial_identity(of_model, Wanda(sparsity=0.5), TOKENS.clone(), TOKENS, ASKED)
        == identities[0]
    )


def test_code_that_a_method_reaches_is_in_its_identity(make_model, monkeypatch):
    graph = trial_cache.source_graph()
    of_model = model_identity(make_model("llama"))

    def identity(method):
        return trial_identity(of_model, method, TOKENS, TOKENS, ASKED)

    before = [identity(Wanda(sparsity=0.5)), identity(SparseGPT(sparsity=0.5))]
    text = graph.text
    monkeypatch.setattr(
        graph, "text", lambda name: text(name) + "#" * name.endswith("methods.sparsegpt.method")
    )
    after = [identity(Wanda(sparsity=0.5)), identity(SparseGPT(sparsity=0.5))]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_code_of_a_method_that_is_named_is_in_the_identity(make_model, monkeypatch):
    graph = trial_cache.source_graph()
    of_model = model_identity(make_model("llama"))

    def identities():
        methods = (OWL(sparsity=0.5, base="wanda"), OWL(sparsity=0.5, base="sparsegpt"))
        return [trial_identity(of_model, method, TOKENS, TOKENS, ASKED) for method in methods]

    before = identities()
    text = graph.text
    monkeypatch.setattr(
        graph, "text", lambda name: text(name) + "#" * name.endswith("methods.sparsegpt.method")
    )
    after = identities()
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_nothing_is_shared_once_the_library_has_been_edited(make_model, monkeypatch):
    of_model = model_identity(make_model("llama"))
    wanda = Wanda(sparsity=0.5)
    assert trial_identity(of_model, wanda, TOKENS, TOKENS, ASKED) is not None
    monkeypatch.setattr("prunebook.experiments.trial_cache.source_signature", lambda: "edited")
    assert trial_identity(of_model, wanda, TOKENS, TOKENS, ASKED) is None


def test_a_method_that_cannot_be_told_by_its_options_is_not_shared(make_model):
    @dataclasses.dataclass(frozen=True)
    class OfAPage:
        sparsity: float = 0.5

    of_model = model_identity(make_model("llama"))
    assert trial_identity(of_model, OfAPage(), TOKENS, TOKENS, ASKED) is None
    with_tensor = Wanda(sparsity=0.5)
    object.__setattr__(with_tensor, "scope", torch.zeros(1))
    assert trial_identity(of_model, with_tensor, TOKENS, TOKENS, ASKED) is None


def test_a_footprint_survives_its_record():
    costs = Footprint(1, 2, 3, 4, 0.5, None, 7)
    assert Footprint(**costs.to_dict()) == costs

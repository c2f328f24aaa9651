"""Fingerprints: what is told to differ, what must be in the tables, and that they repeat
themselves."""

import dataclasses

import pytest
import torch
from benchmarks import fingerprints

from prunebook.errors import UserError
from prunebook.methods import REGISTRY


def test_differences_are_told_by_name():
    before = {"a": {"zeros": 1}, "b": {"zeros": 2}, "c": {"zeros": 3}}
    after = {"a": {"zeros": 1}, "b": {"zeros": 5}, "d": {"zeros": 4}}
    assert fingerprints.differences(before, after) == [
        "changed: b: {'zeros': 2} -> {'zeros': 5}",
        "gone: c",
        "new: d",
    ]
    assert fingerprints.differences(before, before) == []


def test_every_option_has_a_run():
    assert fingerprints.METHODS.keys() <= REGISTRY.keys()
    for slug in fingerprints.METHODS:
        labels = [label for label, _ in fingerprints.runs_of(slug)]
        assert len(set(labels)) == len(labels) > 0


def test_an_option_without_a_run_is_refused(monkeypatch):
    @dataclasses.dataclass
    class Wanda:
        sparsity: float = 0.5
        novelty: int = 0

    monkeypatch.setattr(fingerprints, "load_class", lambda slug: Wanda)
    with pytest.raises(UserError, match=r"^no run sets novelty of wanda; add it to METHODS$"):
        list(fingerprints.runs_of("wanda"))


def test_a_method_without_a_run_is_refused(monkeypatch):
    monkeypatch.setattr(fingerprints, "REGISTRY", {"wanda": REGISTRY["wanda"]})
    monkeypatch.delitem(fingerprints.METHODS, "wanda")
    with pytest.raises(UserError, match=r"^no run of wanda; add it to METHODS$"):
        list(fingerprints.of_methods())


def test_options_that_stand_for_each_other_are_not_given_together():
    runs = dict(fingerprints.runs_of("wanda"))
    assert runs["method wanda pattern=2:4"] == {"pattern": "2:4"}
    assert runs["method wanda scope=layer"] == {"sparsity": 0.5, "scope": "layer"}


def test_a_hash_tells_shape_and_every_bit():
    plain = torch.tensor([[0.0, 1.0]])
    assert fingerprints.digest([plain]) == fingerprints.digest([plain.clone()])
    others = [plain.T, torch.tensor([[-0.0, 1.0]]), torch.tensor([[0.0, 1 + 2**-23]])]
    assert len({fingerprints.digest([x]) for x in (plain, *others)}) == 4


def test_methods_and_caches_repeat_themselves(monkeypatch):
    monkeypatch.setattr(fingerprints, "METHODS", {"wanda": fingerprints.METHODS["wanda"]})
    monkeypatch.setattr(fingerprints, "REGISTRY", {"wanda": REGISTRY["wanda"]})
    monkeypatch.setattr(fingerprints, "CACHES", {"H2OCache": [{}, {"budget": 8}]})
    first, second = (
        dict([*fingerprints.of_methods(), *fingerprints.of_caches()]) for _ in range(2)
    )
    assert first == second
    assert len(first) == 6
    hashes = [each["weights"] for label, each in first.items() if "wanda" in label]
    assert len(set(hashes)) > 1  # options change what is left
    assert first["cache H2OCache"] != first["cache H2OCache budget=8"]


def test_times_are_left_out_of_tables():
    row = {"label": "Wanda", "perplexity": 20.5, "seconds": 3.2, "tokens_per_second": 8.0}
    assert fingerprints.without_times(row) == {"label": "Wanda", "perplexity": 20.5}


def test_options_that_change_nothing_are_named():
    same = {"weights": "a"}
    other = {"weights": "b"}
    found = {"method x": same, "method x seed=1": same, "method x rank=2": other, "page x": same}
    assert fingerprints.without_effect(found) == ["no effect: method x seed=1"]

"""The methods by name: which there are, and how one is made from a name and options."""

import pytest

from prunebook import methods
from prunebook.errors import UserError
from prunebook.methods import SparseGPT, Wanda, list_methods
from prunebook.methods.registry import REGISTRY, load_class, make_method, name_of


def test_methods_are_listed():
    entries = {entry["name"]: entry for entry in list_methods()}
    assert list(entries) == sorted(REGISTRY)
    papers = {name: entry["paper"] for name, entry in entries.items()}
    elsewhere = {
        "gradual-magnitude": "sparse-scaling-laws",
        "magnitude": "essential-sparsity",
        "remove-blocks": None,
    }
    assert papers == {name: elsewhere.get(name, name) for name in REGISTRY}
    assert entries["wanda"]["options"] == {
        "sparsity": None,
        "pattern": None,
        "scope": "row",
        "precision": "exact",
    }
    free = ["bitnet-b158", "magnitude", "remove-blocks"]
    assert [name for name, entry in entries.items() if entry["text"] is None] == free
    trained = ["compresso", "gradual-magnitude", "sheared-llama"]
    assert [name for name, entry in entries.items() if entry["text"] == "data"] == trained
    assert entries["sparsegpt"]["class"] == "SparseGPT"
    assert methods.SparseGPT is SparseGPT
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = methods.Nothing


def test_a_name_and_options_make_a_method():
    method = make_method("wanda", {"sparsity": 0.5, "scope": "layer"})
    assert method == Wanda(sparsity=0.5, scope="layer")
    assert make_method(method, {}) is method


def test_the_name_of_a_method_is_the_registered_one():
    class Unregistered(Wanda):
        """A method of the reader's own."""

    assert name_of(Wanda(sparsity=0.5)) == "wanda"
    assert name_of(Unregistered(sparsity=0.5)) == "Unregistered"
    classes = {name: load_class(name).__name__ for name in REGISTRY}
    assert classes == {name: class_name for name, (_, class_name) in REGISTRY.items()}


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "wonda",
            {"sparsity": 0.5},
            "method 'wonda' is unknown; use " + ", ".join(sorted(REGISTRY)),
        ),
        (
            "wanda",
            {"sparsity": 0.5, "damping": 1},
            "method 'wanda' has no option damping; it has sparsity, pattern",
        ),
        (Wanda(sparsity=0.5), {"sparsity": 0.6}, r"options sparsity go into Wanda\(...\)"),
        (Wanda, {}, "method <class .*> is no method object; use a name or e.g. methods.Wanda"),
        (None, {}, "method None is no method object; use a name"),
    ],
)
def test_what_is_no_method_is_refused(method, options, message):
    with pytest.raises(UserError, match=message) as caught:
        make_method(method, options)
    assert "\n" not in str(caught.value)

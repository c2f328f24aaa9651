"""The methods by name: which there are, and how one is made from a name and options."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from tests.refusals import refused_in_one_line

from prunebook import methods
from prunebook.errors import UserError
from prunebook.methods import SparseGPT, Wanda, list_methods
from prunebook.methods.base import Method, ScoreMethod
from prunebook.methods.registry import REGISTRY, load_class, make_method, name_of


def test_methods_are_listed():
    entries = {entry["name"]: entry for entry in list_methods()}
    assert list(entries) == sorted(REGISTRY)
    assert entries["wanda"]["options"] == {
        "sparsity": None,
        "pattern": None,
        "scope": "row",
        "precision": "exact",
    }
    assert entries["sparsegpt"]["class"] == "SparseGPT"
    assert methods.SparseGPT is SparseGPT
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = methods.Nothing


def test_an_entry_says_what_the_class_declares(monkeypatch):
    @dataclass(frozen=True)
    class Free(Method):
        blocks: int = 2

        needs_calibration: ClassVar[bool] = False
        makes_smaller: ClassVar[bool] = True
        sparsity_of: ClassVar[str | None] = None

        def prune(self, model, text, *, progress=None, device=None):
            """Leave the model as it is."""

    @dataclass(frozen=True)
    class Trained(Method):
        sparsity: float | None = None

        paper: ClassVar[str | None] = "a-paper"
        needs_calibration: ClassVar[bool] = False
        needs_data: ClassVar[bool] = True
        sparsity_of: ClassVar[str | None] = "the weights"

        def prune(self, model, text, *, progress=None, device=None):
            """Leave the model as it is."""

    for cls in (Free, Trained):
        monkeypatch.setitem(REGISTRY, cls.__name__.lower(), ("wanda", cls.__name__))
        monkeypatch.setattr(f"prunebook.methods.wanda.{cls.__name__}", cls, raising=False)
    entries = {entry["name"]: entry for entry in list_methods()}
    assert entries["free"] == {
        "name": "free",
        "class": "Free",
        "paper": None,
        "text": None,
        "makes_smaller": True,
        "sparsity_of": None,
        "options": {"blocks": 2},
    }
    assert entries["trained"] == {
        "name": "trained",
        "class": "Trained",
        "paper": "a-paper",
        "text": "data",
        "makes_smaller": False,
        "sparsity_of": "the weights",
        "options": {"sparsity": None},
    }
    assert (entries["wanda"]["paper"], entries["wanda"]["text"]) == ("wanda", "calibration")


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
    with refused_in_one_line(message):
        make_method(method, options)


class Sound(Method):
    """What a class of the reader's own needs, but for the decorator."""

    needs_calibration: ClassVar[bool] = False
    sparsity_of: ClassVar[str | None] = None

    def prune(self, model, text, *, progress=None, device=None):
        """Leave the model as it is."""


class Undeclared(Method):
    def prune(self, model, text, *, progress=None, device=None):
        """Leave the model as it is."""


class OtherNames(Sound):
    def prune(self, model, data, calibration, device=None):
        """Leave the model as it is."""


class WithoutTargets(Sound):
    takes_allocation: ClassVar[bool] = True


class LostOption(Wanda):
    strength: float = 0.5


class NoMethod:
    pass


frozen = dataclass(frozen=True)
DECORATE = "is no frozen dataclass; put @dataclass(frozen=True) above it"
SPARSITY_OF = (
    "has no sparsity_of; write sparsity_of: ClassVar[str | None] = 'the blocks', or what else its "
    "sparsity is a fraction of, None for a method without that option"
)
REFUSED = [
    (Sound, DECORATE),
    (dataclass(type("Thawed", (Sound,), {})), DECORATE),
    (LostOption, DECORATE),
    (frozen(Undeclared), SPARSITY_OF),
    (
        frozen(OtherNames),
        "has a prune that cannot be called: missing a required argument: 'calibration'; write "
        "prune(self, model, text, *, progress=None, device=None)",
    ),
    (
        frozen(WithoutTargets),
        "has a prune that cannot be called: got an unexpected keyword argument 'targets'; write "
        "prune(self, model, text, *, targets=None, progress=None, device=None)",
    ),
]
ABSENT = [
    (NoMethod, "is no subclass of Method; derive it from methods.base.Method"),
    (None, "is no subclass of Method; derive it from methods.base.Method"),
    (frozen(type("Empty", (Method,), {})), "has no prune; define it as the base class says"),
    (
        frozen(type("Scoreless", (ScoreMethod,), {})),
        "has no score; define it as the base class says",
    ),
]


@pytest.mark.parametrize(("cls", "fault"), REFUSED)
def test_an_object_of_a_class_without_the_contract_is_refused(cls, fault):
    options = {}
    if issubclass(cls, Wanda):
        options["sparsity"] = 0.5
    with pytest.raises(UserError) as caught:
        make_method(cls(**options), {})
    assert str(caught.value) == f"{cls.__name__} {fault}"


@pytest.mark.parametrize(("cls", "fault"), [*REFUSED, *ABSENT])
def test_a_registered_class_without_the_contract_is_refused(monkeypatch, cls, fault):
    monkeypatch.setitem(REGISTRY, "mine", ("wanda", "Mine"))
    monkeypatch.setattr("prunebook.methods.wanda.Mine", cls, raising=False)
    for use in (lambda: make_method("mine", {}), list_methods):
        with pytest.raises(UserError) as caught:
            use()
        assert str(caught.value) == f"Mine of methods.wanda {fault}"


def test_a_class_of_the_readers_own_with_the_contract_is_taken():
    method = frozen(type("Mine", (Sound,), {}))()
    assert make_method(method, {}) is method


def test_an_object_that_only_looks_like_a_method_is_refused():
    with pytest.raises(UserError) as caught:
        make_method(b"wanda", {})
    assert str(caught.value) == (
        "method b'wanda' is no method object; use a name or e.g. methods.Wanda(sparsity=0.5), or "
        "derive a class of your own from methods.base.Method"
    )

"""What implements the papers: entries of the rooms' registries, read and added."""

from pathlib import Path

import pytest
from tests.tiny_book import REGISTRY

from prunebook.catalog.registry import places, registry_file, with_entry
from prunebook.errors import UserError


@pytest.mark.parametrize(
    ("name", "class_name"), [("alpha", "Alpha"), ("owl", "OWL"), ("zero", "Zero")]
)
def test_a_registry_stays_sorted(name, class_name):
    values = {}
    exec(with_entry(REGISTRY, name, name, class_name, "methods"), values)
    assert list(values["REGISTRY"]) == sorted(["magnitude", "wanda", name])
    assert values["REGISTRY"][name] == (name, class_name)


@pytest.mark.parametrize("room", ["methods", "caches"])
def test_what_cannot_be_added_is_refused(room):
    with pytest.raises(UserError, match=f"class name 'Wanda' is taken in lib/prunebook/{room}; "):
        with_entry(REGISTRY, "again", "again", "Wanda", room)
    one_line = 'REGISTRY = {"a": ("a", "A")}\n__all__ = ["A"]\n'
    message = f"^lib/prunebook/{room}/registry.py: REGISTRY must hold one entry a line"
    with pytest.raises(UserError, match=message):
        with_entry(one_line, "b", "b", "B", room)


def test_places():
    assert registry_file("caches") == Path("lib/prunebook/caches/registry.py")
    assert places("caches", "h2o") == (
        Path("lib/prunebook/caches/h2o.py"),
        Path("tests/caches/test_h2o.py"),
    )
    assert places("methods", "owl.method") == (
        Path("lib/prunebook/methods/owl/method.py"),
        Path("tests/methods/owl/test_method.py"),
    )

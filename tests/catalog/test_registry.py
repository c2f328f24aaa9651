"""What implements the papers: entries of the rooms' registries, read and added."""

from pathlib import Path

import pytest
from tests.tiny_book import REGISTRY

from prunebook.catalog.registry import (
    method_names,
    names_of_room,
    places,
    read_registry,
    registry_file,
    with_entry,
)
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


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("methods", {"Method", "ScoreMethod", "Report", "NofM", "Any", "Comparison", "None"}),
        ("caches", {"RandomCache", "WindowCache", "CacheBudget", "Recall", "CacheComparison"}),
    ],
)
def test_names_that_a_room_uses_are_taken(room, names):
    used = names_of_room(Path(__file__).parents[2], room)
    assert names <= used
    assert "Wanda" not in used
    for class_name in names:
        with pytest.raises(UserError, match=f"'{class_name}' is taken in lib/prunebook/{room}; "):
            with_entry(REGISTRY, "again", "again", class_name, room, used)


def test_a_room_that_cannot_be_parsed(book):
    (book / "lib/prunebook/methods/base.py").write_text("class (")
    with pytest.raises(UserError, match=r"^cannot read .*base\.py: "):
        names_of_room(book, "methods")


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


@pytest.mark.parametrize("line", ["REGISTRY = {}", "REGISTRY: dict[str, tuple[str, str]] = {}"])
def test_method_names_are_read_without_running_the_file(tmp_path, line):
    path = tmp_path / "methods.py"
    table = '{"magnitude": ("magnitude", "Magnitude"), "wanda": ("wanda", "Wanda")}'
    path.write_text(f"import not_installed\n{line.replace('{}', table)}\n")
    assert method_names(path) == ["magnitude", "wanda"]


def test_method_names_without_a_registry(tmp_path):
    path = tmp_path / "methods.py"
    with pytest.raises(UserError, match="cannot read the method registry"):
        method_names(path)
    path.write_text("OTHER = {}")
    with pytest.raises(UserError, match=r"defines no REGISTRY$"):
        method_names(path)


def test_this_library_s_caches_are_known_where_a_book_has_no_library(tmp_path):
    found = read_registry(tmp_path)
    assert found["h2o"] == (
        "H2OCache",
        Path("lib/prunebook/caches/h2o.py"),
        Path("tests/caches/test_h2o.py"),
    )
    assert found["wanda"].source == Path("lib/prunebook/methods/wanda.py")
    methods = Path("lib/prunebook/methods")
    assert {*method_names()} == {
        name for name, entry in found.items() if entry.source.is_relative_to(methods)
    }


def test_a_name_in_two_rooms(book):
    (book / "lib/prunebook/caches").mkdir()
    (book / "lib/prunebook/caches/registry.py").write_text(
        'REGISTRY = {"wanda": ("heavy", "H2OCache")}\n'
    )
    with pytest.raises(UserError, match="'wanda' is registered in another room already"):
        read_registry(book)

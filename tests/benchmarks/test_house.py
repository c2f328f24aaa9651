"""The counts of the house by hand on a small file, and the rules that the library keeps."""

import ast
import re
from pathlib import Path

import pytest
from benchmarks import house, walks

from prunebook.methods.registry import REGISTRY
from prunebook.models import config

LIBRARY = house.LIBRARY
DENSE = '''"""A file of ten lines that are not blank."""

# a comment
first, second = 1, 2
value = first if second else 0
pairs = [(a, b) for a in "ab" for b in "cd"]
shape, size = divmod(7, 3)


def function():  # another comment
    return {key for key in "ab"}


text = "%s"
''' % ("x" * 100)


def calls(path: Path) -> set[str]:
    """The names of all functions and methods that a file calls."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            names.add(getattr(node.func, "attr", getattr(node.func, "id", "")))
    return names


def test_counts_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    path = tmp_path / "dense.py"
    path.write_text(DENSE)
    counts = house.count_all([path])
    assert counts.lines == 9
    assert counts.comments == 2
    assert counts.places == {
        "tuple-packed assignments": ["dense.py:4"],
        "conditional expressions": ["dense.py:5"],
        "comprehensions of two or more `for`": ["dense.py:6"],
        "lines over 100 characters": ["dense.py:14"],
    }
    assert counts.per_thousand("conditional expressions") == pytest.approx(1000 / 9)
    assert not counts.long_functions
    assert not counts.long_files


def test_a_function_and_a_file_that_are_too_long_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    body = "    value = 1\n"
    (tmp_path / "long.py").write_text(f"def short():\n{body * 49}\n\ndef long():\n{body * 250}")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "long.py").write_text(f"def kernel():\n{body * 60}")
    counts = house.count_all(list(tmp_path.rglob("*.py")))
    assert counts.long_functions == ["long.py:53 long: 251 lines"]
    assert counts.long_files == ["long.py: 303 lines"]


def test_the_house_has_seventeen_rooms_and_four_files():
    packages, files = house.rooms()
    assert len(packages) == 17
    assert files == ["__init__.py", "errors.py", "files.py", "validation.py"]


def test_the_library_keeps_its_limits():
    counts = house.count_all(house.python_files(LIBRARY))
    for name, limit in house.LIMITS.items():
        assert counts.per_thousand(name) <= limit, counts.places[name]
    assert counts.long_functions == []
    assert counts.long_files == []
    assert house.many_options() == []


@pytest.mark.parametrize("room", house.COMMENTED)
def test_rooms_that_follow_papers_are_commented(room):
    counts = house.count_all(house.python_files(LIBRARY / room))
    assert counts.comments >= 0.05 * counts.lines


def test_hooks_are_registered_in_one_file():
    hooking = [
        path.relative_to(LIBRARY).as_posix()
        for path in house.python_files(LIBRARY)
        if any(name.startswith("register_") and "hook" in name for name in calls(path))
    ]
    assert hooking == ["passes/hooks.py"]


def test_the_engine_names_no_method_and_probes_none():
    engine = LIBRARY / "methods" / "prune.py"
    assert "hasattr" not in calls(engine)
    source = engine.read_text(encoding="utf-8")
    assert not re.search(r"getattr\(method\b", source.replace("getattr(method, option.name)", ""))
    for class_name in {class_name for _, class_name in REGISTRY.values()} - {"Wanda"}:
        assert not re.search(rf"\b{class_name}\b", source)


def test_keys_of_the_configuration_are_written_in_one_file():
    for path in house.python_files(LIBRARY):
        if path != LIBRARY / "models" / "config.py":
            source = path.read_text(encoding="utf-8")
            for key in config.KEYS:
                assert f'"{key}"' not in source, path


def test_a_walk_notes_the_functions_that_run_in_its_files():
    code = walks.executed_code(lambda: house.rooms())
    assert code == set()  # not of the library
    files = walks.lines_read(walks.executed_code(walks.prune_by_wanda), ("methods/wanda.py",))
    assert list(files) == ["methods/wanda.py"]
    assert files["methods/wanda.py"] < 30


@pytest.mark.parametrize("subject", sorted(walks.WALKS))
def test_a_method_is_followed_in_few_files(subject):
    parts, most_files, most_lines = walks.WALKS[subject]
    files = walks.lines_read(walks.executed_code(walks.RUNS[subject]), parts)
    assert len(files) <= most_files
    assert sum(files.values()) <= most_lines

"""What a change to the site's inputs is, told by names, sizes and times of files alone."""

import os

import pytest

from prunebook.site import inputs
from prunebook.site.inputs import inputs_state

VERSIONS = {"sphinx": "7.4", "jupyter-book": "1.0.4"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A book of one paper with a library of one file beside it."""
    for file in ("papers/wanda.ipynb", "_build/executed/quick/wanda.ipynb", "index.md"):
        (tmp_path / "book" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / file).write_text("{}")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "errors.py").write_text("")
    monkeypatch.setattr(inputs, "PACKAGE", tmp_path / "library")
    return tmp_path / "book"


def state(root):
    return inputs_state(root, VERSIONS)


@pytest.mark.parametrize(
    "file",
    [
        "papers/wanda.ipynb",
        "_build/executed/quick/wanda.ipynb",
        "index.md",
        "../library/errors.py",
        "concepts/new.md",
        "benchmarks/results/kernels-a.json",
    ],
)
def test_a_change_to_an_input_counts(root, file):
    before = state(root)
    assert state(root) == before
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text("[1]")
    after = state(root)
    assert after != before
    os.utime(root / file, ns=(1, 1))  # the size stays
    assert state(root) != after


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "_build/html/index.html",
        "_build/executed/quick/wanda.log",
        "papers/.wanda.ipynb.swp",
        "../library/__pycache__/errors.pyc",
    ],
)
def test_other_files_do_not_count(root, file):
    before = state(root)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text("x")
    assert state(root) == before


def test_a_file_that_is_gone_or_renamed_counts(root):
    before = state(root)
    (root / "papers/wanda.ipynb").rename(root / "papers/owl.ipynb")
    renamed = state(root)
    (root / "papers/owl.ipynb").unlink()
    assert len({before, renamed, state(root)}) == 3


def test_versions_and_the_commit_count(root, monkeypatch):
    before = state(root)
    assert inputs_state(root, dict(reversed(VERSIONS.items()))) == before
    states = {before, inputs_state(root, VERSIONS | {"sphinx": "8.0"})}
    monkeypatch.setattr(inputs, "head_commit", lambda root: "abc")
    states.add(state(root))
    monkeypatch.setattr(inputs, "pinned_versions", lambda: {"torch": "0"})
    states.add(state(root))
    assert len(states) == 4

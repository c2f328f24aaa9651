"""The book, read once."""

import dataclasses
import json
from pathlib import Path

import pytest
from sphinx_external_toc.parsing import parse_toc_yaml
from tests.refusals import refused_in_one_line
from tests.small_book import write_sources

from prunebook.errors import UserError
from prunebook.runs.notebooks import assigned_parameters, read_runnables
from prunebook.runs.profiles import load_profiles, parameters_of
from prunebook.site.book import read_book, read_ordering

ORDERING = {"kind": "prunebook-ordering", "version": 1, "rows": []}
TOC = "format: jb-book\nroot: index\nchapters:\n- file: papers/later\n- file: papers/alpha\n"


def test_a_book_holds_all_that_pages_need(book):
    write_sources(book.root)
    book.add("alpha", "1")
    (book.root / "_toc.yml").write_text(TOC)
    read = read_book(book.root)
    assert [paper.slug for paper in read.bare_papers] == ["alpha"]
    assert read.page_names == ("index", "papers/later", "papers/alpha")
    assert read.contents == TOC
    assert read.texts["concepts/types.md"] == "# Types\n"
    assert "(note-alpha)=" in read.texts["challenge/challenge.md"]
    assert read.address.site == "https://tiny.example/book/"
    assert (read.pages, read.recorded_runs, read.ordering_record) == ((), (), None)
    assert read.last_changed == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.papers = ()


@pytest.mark.parametrize("name", ["_config.yml", "index.md", "challenge/challenge.md"])
def test_a_missing_source_is_named(book, name):
    write_sources(book.root)
    (book.root / name).unlink()
    with pytest.raises(UserError, match=f"^{name} is missing in "):
        read_book(book.root)


def test_the_ordering_record_is_read_or_refused_in_one_line(tmp_path):
    assert read_ordering(tmp_path) is None
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    file = folder / "ordering-cpu.json"
    file.write_text(json.dumps(ORDERING))
    assert read_ordering(tmp_path) == ORDERING
    for content, message in (
        ("{", "is no readable record"),
        ("[]", "is no readable record"),
        (
            json.dumps(ORDERING | {"version": 2}),
            r"kind and version \('prunebook-ordering', 2\) are not",
        ),
    ):
        file.write_text(content)
        with refused_in_one_line(message):
            read_ordering(tmp_path)


def test_the_books_own_profiles_and_contents():
    """Every notebook is in the table of contents; each that runs has the parameters that the
    profiles give it."""
    root = Path(__file__).parents[2]
    profiles = load_profiles(root)
    assert list(profiles) == ["quick", "book", "gemma", "full", "gpu"]
    declared = [str(name) for name in parse_toc_yaml(root / "_toc.yml")]
    for runnable in read_runnables(root):
        assert f"{'' if runnable.is_text else 'papers/'}{runnable.name}" in declared
        if runnable.is_text or not runnable.implemented:
            continue
        for profile in profiles:
            # or it raises
            parameters_of(root, profile, runnable.name, assigned_parameters(runnable.read()))

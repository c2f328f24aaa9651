import json
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook, new_raw_cell
from tests.tiny_book import cell, notebook, other_record, record, write

from prunebook.catalog import cell_sources, challenge_note, find_root, read_paper, read_papers
from prunebook.errors import UserError


def read_error(path) -> str:
    with pytest.raises(UserError) as caught:
        read_paper(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_find_root_climbs(book, monkeypatch):
    deep = book / "papers" / "a" / "b"
    deep.mkdir(parents=True)
    assert find_root(deep) == find_root(book) == book
    monkeypatch.chdir(deep)
    assert find_root() == book


def test_find_root_needs_both_marks(tmp_path):
    (tmp_path / "papers").mkdir()
    with pytest.raises(
        UserError, match=r"or above it: a book's folder holds papers/ and _toc\.yml$"
    ):
        find_root(tmp_path)


def test_read_paper(book):
    paper = read_paper(book / "papers" / "wanda.ipynb")
    assert (paper.slug, paper.path.name, paper.record.venue.name) == (
        "wanda",
        "wanda.ipynb",
        "ICLR",
    )


def test_front_matter_may_stand_between_dashes(book):
    content = notebook(record())
    content.cells[0].source = f"---\n{content.cells[0].source}---\n"
    assert read_paper(write(book, record(), content)).record.method == "wanda"


def test_papers_come_latest_year_first_then_by_title_then_by_slug(book):
    for slug, title, year in [
        ("z", "aleph", 2024),
        ("y", "Alpha", 2023),
        ("x", "Alpha", 2024),
        ("w", "Alpha", 2024),
    ]:
        write(book, other_record(slug=slug, title=title, year=year))
    assert [paper.slug for paper in read_papers(book)] == ["wanda", "z", "w", "x", "y", "scaling"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "papers/bad.ipynb: not a readable notebook: Expecting property name"),
        (b"\xff\xfe", "papers/bad.ipynb: not a readable notebook: 'utf-8' codec can't decode"),
        (b"[]", "papers/bad.ipynb: not a readable notebook: needs nbformat 4"),
        (b'{"nbformat": 3}', "papers/bad.ipynb: not a readable notebook: needs nbformat 4"),
        (
            json.dumps(
                {
                    "nbformat": 4,
                    "nbformat_minor": 5,
                    "metadata": {},
                    "cells": [{"cell_type": "raw"}],
                }
            ).encode(),
            "papers/bad.ipynb: not a readable notebook: cells.0: ",
        ),
    ],
)
def test_unreadable_notebooks(book, content, message):
    path = book / "papers" / "bad.ipynb"
    path.write_bytes(content)
    assert read_error(path).startswith(message)


def test_absent_notebook(book):
    assert (
        read_error(book / "papers" / "no.ipynb")
        == "papers/no.ipynb: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [new_raw_cell("paper: {}")],
        [cell("record", "paper: {}", new_markdown_cell)],
        [cell("record", "just text", new_raw_cell)],
        [cell("record", "article: {}", new_raw_cell)],
    ],
)
def test_missing_record(book, cells):
    path = write(book, {"slug": "none"}, new_notebook(cells=cells))
    assert read_error(path) == (
        "papers/none.ipynb: no record: the first cell must be a raw cell tagged 'record' "
        "that holds YAML under 'paper:'"
    )


COLON = "; put texts with a colon in quotes"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("paper:\n  a: [1\n  b: 2", "expected ',' or ']', but got ':' in line 3" + COLON),
        ("paper:\n  a: b: c", "mapping values are not allowed here in line 2" + COLON),
        ("paper:\n  a: {b: c: d}", "expected ',' or '}', but got ':' in line 2" + COLON),
        ("paper:\n  a: @b", "found character '@' that cannot start any token in line 2"),
    ],
)
def test_bad_yaml(book, text, problem):
    content = new_notebook(cells=[cell("record", text, new_raw_cell)])
    path = write(book, {"slug": "none"}, content)
    assert read_error(path) == f"papers/none.ipynb: the record is no valid YAML: {problem}"


def test_slug_must_be_the_file_name(book):
    path = write(book, {"slug": "none"}, notebook(record()))
    assert (
        read_error(path) == "papers/none.ipynb: paper.slug: 'wanda' must be the file's name, 'none'"
    )


def test_cell_sources(book):
    path = book / "papers" / "wanda.ipynb"
    assert cell_sources(path, "figure") == ["# figure", "# figure"]
    assert cell_sources(path, "nothing") == []


def test_challenge_note(book):
    assert challenge_note(book / "papers" / "wanda.ipynb") == "## Challenge\n\n- Limits of Wanda."
    content = notebook(record())
    del content.cells[10]
    with pytest.raises(
        UserError, match=r"^papers/wanda.ipynb: needs one cell tagged 'challenge', has 0$"
    ):
        challenge_note(write(book, record(), content))


def test_reading_leaves_the_file_alone(book):
    path = book / "papers" / "wanda.ipynb"
    before = path.read_bytes()
    read_paper(path)
    assert path.read_bytes() == before
    assert nbformat.read(path, as_version=4).cells[0].cell_type == "raw"


def test_the_catalogue_needs_no_torch():
    code = (
        "import sys, prunebook.catalog, prunebook.cli\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

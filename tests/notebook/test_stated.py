"""Where the claims of a record come from: the environment, this notebook, the book around it."""

import json
import os
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_raw_cell

from prunebook.errors import UserError
from prunebook.notebook.stated import find_book, find_stated, record_yaml, stated_text


def claim(key: str, **fields: str) -> dict[str, str]:
    """A claim as a record has it."""
    return {"key": key, "statement": f"It is {key}", **fields}


def write(book, slug: str, *keys: str, errata: str = "") -> None:
    """A notebook of the book whose record has these claims."""
    lines = ["paper:", f"  slug: {slug}", *(["  claims:"] if keys else [])]
    lines += [f"  - {{key: {key}, statement: of {slug}}}" for key in keys]
    cells = [new_raw_cell("---\n" + "\n".join(lines) + errata + "\n---"), new_code_cell("1")]
    nbformat.write(new_notebook(cells=cells), book / "papers" / f"{slug}.ipynb")


@pytest.fixture
def book(tmp_path, monkeypatch):
    """The folder of a book of two papers; the working folder is its `papers/`."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "_toc.yml").touch()
    write(tmp_path, "owl", "better", "speed")
    write(tmp_path, "wanda", "simple", "speed")
    monkeypatch.chdir(tmp_path / "papers")
    return tmp_path


def test_the_environment_comes_first(book, monkeypatch):
    lists = {"claims": [claim("given")], "errata": [{"paper": "x"}]}
    monkeypatch.setenv("PRUNEBOOK_CLAIMS", json.dumps(lists))
    found = find_stated("given")
    assert found.claim("given") == claim("given")
    assert found.errata == [{"paper": "x"}]
    with pytest.raises(UserError, match=r"^claim 'better' is not in the record; allowed: given$"):
        find_stated("better").claim("better")


def test_the_one_paper_that_has_the_claim(book):
    assert find_stated("better").claim("better") == {"key": "better", "statement": "of owl"}
    assert find_stated("simple").paper == "wanda"


def test_a_key_of_two_papers_is_that_of_the_paper_checked_before(book):
    with pytest.raises(UserError, match="'speed' is in the records of owl, wanda; check a claim"):
        find_stated("speed")
    with pytest.raises(UserError, match="cannot tell which paper this page is"):
        find_stated()
    find_stated("simple")
    assert find_stated("speed").paper == "wanda"
    assert find_stated().paper == "wanda"


def test_jupyter_names_the_notebook(book, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/book/papers/wanda.ipynb")
    assert find_stated("speed").paper == "wanda"
    assert find_stated().paper == "wanda"
    monkeypatch.setenv("JPY_SESSION_NAME", "a console")
    assert find_stated("better").paper == "owl"


def test_vs_code_names_the_notebook(book, monkeypatch):
    shell = SimpleNamespace(user_ns={"__vsc_ipynb_file__": "/tmp/papers/owl.ipynb"})
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert find_stated("speed").paper == "owl"
    shell.user_ns.clear()
    assert find_stated("better").paper == "owl"


def test_a_changed_record_is_read_again(book):
    assert find_stated("better").paper == "owl"
    write(book, "owl", "best")
    os.utime(book / "papers" / "owl.ipynb", (1, 1))
    assert find_stated("best").paper == "owl"


def test_an_unknown_claim_and_no_book(book, tmp_path_factory, monkeypatch):
    with pytest.raises(UserError, match=r"^claim 'worse' is in no record of the book at "):
        find_stated("worse")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UserError, match=r"^no record at hand: PRUNEBOOK_CLAIMS is not set"):
        find_stated("better")


FORM = r'PRUNEBOOK_CLAIMS must hold JSON like \{"claims": \[\{"key": "a-key", \.\.\.\}\], "errata"'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("not json{", "Expecting value"),
        (" ", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[]", "list instead of an object"),
        ("3", "int instead of an object"),
        ("null", "NoneType instead of an object"),
        ('"x"', "str instead of an object"),
        ('{"claims": null}', "claims is NoneType; needs a list of mappings"),
        ('{"claims": {"a": 1}}', "claims is dict; needs a list of mappings"),
        ('{"claims": ["x"]}', "claims has the entry 'x'; needs a mapping"),
        ('{"claims": [{"statement": "x"}]}', "the key of a claim is None; needs a text"),
        ('{"claims": [{"key": ["x"]}]}', "the key of a claim is .'x'.; needs a text"),
        ('{"errata": "x"}', "errata is str; needs a list of mappings"),
        ('{"errata": ["x"]}', "errata has the entry 'x'; needs a mapping"),
        ('{"claims": [{"key": "a"}, {"key": "a"}]}', "two claims have the key 'a'"),
        ('{"claims": [], "claims": []}', "an object has the name 'claims' twice"),
    ],
)
@pytest.mark.parametrize("key", ["a", None])
def test_what_the_environment_must_hold(monkeypatch, text, fault, key):
    monkeypatch.setenv("PRUNEBOOK_CLAIMS", text)
    with pytest.raises(UserError, match=f"^{FORM}.*: .*{fault}") as caught:
        find_stated(key)
    assert "\n" not in str(caught.value)


def page(fields: str) -> str:
    """A notebook as text whose record has these fields, which may be of any form."""
    return nbformat.writes(new_notebook(cells=[new_raw_cell(f"paper: {{slug: bad, {fields}}}")]))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        (page("claims: abc"), "claims is str; needs a list of mappings"),
        (page("claims: [abc]"), "claims has the entry 'abc'; needs a mapping"),
        (page("claims: {a: b}"), "claims is dict; needs a list of mappings"),
        (page("claims: [{statement: x}]"), "the key of a claim is None; needs a text"),
        (page("claims: [{key: a}, {key: a}]"), "two claims have the key 'a'"),
        (page("claims: ["), "while parsing a flow"),
    ],
)
def test_a_record_that_cannot_be_read_stops_its_own_page_alone(book, monkeypatch, text, fault):
    (book / "papers" / "bad.ipynb").write_text(text)
    assert find_stated("better").paper == "owl"
    message = rf"papers/bad\.ipynb: its record cannot be read: .*{fault}"
    with pytest.raises(UserError, match=f"^claim 'worse' is in no record .*; {message}") as caught:
        find_stated("worse")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("JPY_SESSION_NAME", "bad.ipynb")
    with pytest.raises(UserError, match=f"^{message}"):
        find_stated("better")


def test_a_notebook_that_is_no_file_stops_its_own_page_alone(book):
    (book / "papers" / "dangling.ipynb").symlink_to(book / "nowhere.ipynb")
    (book / "papers" / "folder.ipynb").mkdir()
    assert find_stated("simple").paper == "wanda"
    with pytest.raises(UserError, match=r"papers/dangling\.ipynb: .*; papers/folder\.ipynb: "):
        find_stated("worse")


def test_a_key_is_a_text(book):
    with pytest.raises(UserError, match=r"^claim \['x'\]: key is \['x'\]; needs a text$"):
        find_stated(["x"])


def test_find_book(book):
    assert find_book(book / "papers" / "deep") == book
    assert find_book(book.parent) is None


@pytest.mark.parametrize("source", ["---\na: 1\n---", "a: 1", "  ---  \na: 1\n---\n"])
def test_front_matter(source):
    assert record_yaml(source) == "a: 1"


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [new_code_cell("paper: {claims: [1]}")],
        [new_raw_cell("paper: [")],
        [new_raw_cell("text")],
        [new_raw_cell("paper: text")],
        [new_raw_cell("paper: {claims: []}")],
    ],
)
def test_no_claims_give_an_empty_text(cells):
    assert stated_text(new_notebook(cells=cells)) == ""


def test_claims_and_errata_as_text():
    source = "paper:\n  slug: x\n  claims: [{key: é}]\n  errata: [{paper: a}]"
    text = stated_text(new_notebook(cells=[new_raw_cell(source)]))
    assert json.loads(text) == {"claims": [{"key": "é"}], "errata": [{"paper": "a"}]}
    as_json = {"cells": [{"cell_type": "raw", "source": source.splitlines(keepends=True)}]}
    assert stated_text(as_json) == text

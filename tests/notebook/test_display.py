"""One output in several representations, in a notebook and outside of one."""

import sys

import pytest
from IPython.core.formatters import DisplayFormatter

from prunebook.notebook.display import ShownRecord, display_bundle, display_record

DATA = {"text/plain": "a table", "text/html": "<b>a table</b>", "application/x": {"rows": [1]}}


@pytest.mark.parametrize("installed", [True, False])
def test_outside_a_notebook_the_text_is_printed(monkeypatch, capsys, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "IPython.display", None)
    display_bundle(DATA)
    assert capsys.readouterr().out == "a table\n"


def test_a_notebook_gets_all_representations(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    display_bundle(DATA)
    data, metadata = DisplayFormatter().format(shown[0])
    assert data == DATA
    assert metadata == {}


def test_a_record_is_shown_with_its_data_beside_it(shown):
    display_record("application/x", {"rows": [1]}, "<b>a table</b>", "a table")
    assert shown == [DATA]


def test_a_record_that_has_been_shown_is_not_shown_again():
    assert DisplayFormatter().format(ShownRecord()) == ({}, {})

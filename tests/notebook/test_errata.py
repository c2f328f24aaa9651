import json

import pytest

from prunebook.errors import UserError
from prunebook.notebook import errata
from prunebook.notebook.errata import show_errata
from prunebook.notebook.stated import CLAIMS_VARIABLE, Stated


@pytest.fixture
def shown(monkeypatch):
    """The MIME bundles that were displayed."""
    bundles = []
    monkeypatch.setattr(errata, "display_bundle", bundles.append)
    return bundles


def test_each_erratum_is_a_row_of_text(shown, monkeypatch):
    entry = {"paper": "a < b", "code": "two\n\nlines", "effect": "none", "source": "Table 1"}
    monkeypatch.setenv(CLAIMS_VARIABLE, json.dumps({"errata": [entry]}))
    show_errata()
    page = shown[0]["text/html"]
    assert "<td>a &lt; b</td><td>two lines</td><td>none</td><td>Table 1</td>" in page
    assert "\n" not in page
    assert shown[0]["text/plain"].startswith("The paper says: a < b\n")


ENTRY = {"paper": "a", "code": "b", "effect": "none known", "source": "Table 1"}


@pytest.mark.parametrize("field", list(ENTRY))
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (..., ": missing"),
        (None, ": None must be text"),
        (5, ": 5 must be text"),
        (["x"], ": ['x'] must be text"),
        (" ", ": ' ' must be text"),
    ],
)
def test_a_field_that_is_missing_or_no_text_is_named(shown, monkeypatch, field, value, fault):
    entry = {**ENTRY, field: value}
    if value is ...:
        del entry[field]
    monkeypatch.setenv(CLAIMS_VARIABLE, json.dumps({"errata": [ENTRY, entry]}))
    with pytest.raises(UserError) as caught:
        show_errata()
    assert str(caught.value) == f"paper.errata[1].{field}{fault}"
    assert shown == []


def test_the_file_of_a_bad_erratum_is_named_where_it_is_known(shown, monkeypatch):
    stated = Stated({}, [{"paper": "a"}], "owl")
    monkeypatch.setattr(errata, "find_stated", lambda: stated)
    with pytest.raises(UserError) as caught:
        show_errata()
    assert str(caught.value) == "papers/owl.ipynb: paper.errata[0].code: missing"


def test_without_errata_the_call_is_refused(shown, monkeypatch):
    monkeypatch.setenv(CLAIMS_VARIABLE, json.dumps({"claims": [{"key": "k"}]}))
    with pytest.raises(UserError, match=r"^the record has no errata"):
        show_errata()
    assert shown == []

import json

import pytest

from prunebook.errors import UserError
from prunebook.notebook import errata
from prunebook.notebook.errata import show_errata
from prunebook.notebook.stated import CLAIMS_VARIABLE


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


def test_without_errata_the_call_is_refused(shown, monkeypatch):
    monkeypatch.setenv(CLAIMS_VARIABLE, json.dumps({"claims": [{"key": "k"}]}))
    with pytest.raises(UserError, match=r"^the record has no errata"):
        show_errata()
    assert shown == []

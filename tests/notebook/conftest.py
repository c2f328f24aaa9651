import pytest

from prunebook.notebook import display, results, stated


@pytest.fixture(autouse=True)
def new_page(monkeypatch):
    """Each test is a page of its own: no table shown, no paper known, no claims handed over."""
    monkeypatch.setattr(results._Page, "protocol", None)
    monkeypatch.setattr(stated._Page, "paper", None)
    for name in (stated.CLAIMS_VARIABLE, "JPY_SESSION_NAME", "PRUNEBOOK_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shown(monkeypatch):
    """The MIME bundles that were displayed."""
    bundles = []
    monkeypatch.setattr(display, "display_bundle", bundles.append)
    return bundles

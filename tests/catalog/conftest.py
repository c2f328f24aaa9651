import importlib

import pytest

from .tiny_book import METHODS, make_book


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A sound book of two papers, checked against two methods."""
    monkeypatch.setattr(importlib.import_module("prunebook.catalog.check"), "method_names", lambda: METHODS)
    return make_book(tmp_path / "book")

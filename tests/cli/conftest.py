"""The small book in which commands are called."""

import pytest
from tests.tiny_book import make_book


@pytest.fixture
def book(tmp_path, monkeypatch):
    """The working folder: a sound book of two papers."""
    monkeypatch.chdir(make_book(tmp_path / "book"))
    return tmp_path / "book"

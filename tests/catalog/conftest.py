import pytest
from tests.tiny_book import make_book


@pytest.fixture
def book(tmp_path):
    """A sound book of two papers, with a library of two methods."""
    return make_book(tmp_path / "book")

import pytest

from .small_book import Book


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)

"""A package of the `book` extra that is missing."""

import importlib.metadata

import pytest

from prunebook.errors import UserError
from prunebook.runs.run import run_notebooks
from prunebook.site.build import build_site


def test_a_missing_extra_is_named(book, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    for use in (run_notebooks, build_site):
        with pytest.raises(UserError, match=r"^\S+ is not installed; install prunebook\[book\]$"):
            use(book.root)

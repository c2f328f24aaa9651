"""What `prunebook check` says of the sound book after a change, and what a record's fault is."""

import pytest
from tests.tiny_book import record

from prunebook.catalog import RecordError, check, parse_record

WANDA = "papers/wanda.ipynb"
STRIP = "has outputs or an execution count; `prunebook check --write` strips them"


def lines(book, *names, write=False) -> list[str]:
    """The problems of the book, a line each."""
    found = [str(problem) for problem in check(book, names, write=write)]
    assert not any("\n" in line for line in found)
    return found


def assert_refused(changes: dict, message: str) -> None:
    """The record with these changes has one fault, and this message says which."""
    with pytest.raises(RecordError) as caught:
        parse_record(record(**changes), WANDA)
    assert str(caught.value) == f"{WANDA}: paper.{message}"
    assert caught.value.problems == [f"paper.{message}"]

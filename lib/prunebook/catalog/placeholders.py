"""Places that `prunebook new` leaves for the contributor, as `FILL-IN: what belongs here`.

`prunebook check` reports each until it is replaced.
"""

from collections.abc import Iterator
from typing import Any

import nbformat

from .reader import tags_of

MARK = "FILL-IN"
_LONGEST = 160


def field_faults(value: Any, field: str = "paper") -> Iterator[tuple[str, str]]:
    """The fields of a record that are still to be filled in, each with one line that names it.

    Args:
        value: the record's data, or a part of it.
        field: dotted name of that part.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from field_faults(item, f"{field}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from field_faults(item, f"{field}[{index}]")
    elif isinstance(value, str) and MARK in value:
        yield field, f"{field}: {_request(value)}"


def cell_faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """A line for each place of the cells after the record that is still to be filled in."""
    for index, cell in enumerate(notebook.cells):
        if index:
            tag = "".join(f" ({tag})" for tag in tags_of(cell)[:1])
            yield from line_faults(cell.source, f"cell {index}{tag}, ")


def line_faults(text: str, where: str = "") -> Iterator[str]:
    """A line for each line of a text that is still to be filled in.

    Args:
        text: the text of a cell or a file.
        where: what the message begins with.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if MARK in line:
            yield f"{where}line {number}: {_request(line)}"


def _request(text: str) -> str:
    """The request to write what belongs at the first mark of `text`."""
    hint = " ".join(text.partition(MARK)[2].split()).lstrip(": ").rstrip("\"',).")
    if len(hint) > _LONGEST:
        hint = f"{hint[:_LONGEST].rstrip()}..."
    return f"replace {MARK} with {hint or 'what belongs here'}"

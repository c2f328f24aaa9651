"""The templates of a new paper: the cells of its notebook, and the files of its method by kind.

A place that is filled in by the command is written `{{name}}`. What only a reader of the paper can
write is left as `FILL-IN`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import nbformat

# what can be implemented: a score of weights, a cut, a training, a key-value cache
KINDS = ("score", "structured", "training", "cache")
_FOLDER = Path(__file__).parent / "template"
_RECORD_CELLS = ("record", "title", "method", "challenge", "see-also")
_MAKE_CELL = {
    "raw": nbformat.v4.new_raw_cell,
    "markdown": nbformat.v4.new_markdown_cell,
    "code": nbformat.v4.new_code_cell,
}
# a line above each part of the notebook: type of the cell, tag, id, and the kinds that have it
_PART = re.compile(r"(?m)^=== (raw|markdown|code) (\S+) (\S+)(?: \[([a-z ]+)\])?\n")
_NO_TAG = "-"
_CONTINUES = "+"  # in place of a tag: the part goes on with the cell before it


def record_cells() -> dict[str, nbformat.NotebookNode]:
    """The cells of a paper that is not run yet by id, not filled in."""
    cells = notebook_cells(None)
    return {name: cells[name] for name in _RECORD_CELLS}


def code_cells(kind: str) -> dict[str, nbformat.NotebookNode]:
    """The cells that come with a method by id, not filled in."""
    cells = notebook_cells(kind)
    return {name: cell for name, cell in cells.items() if name not in _RECORD_CELLS}


def notebook_cells(kind: str | None) -> dict[str, nbformat.NotebookNode]:
    """The cells of a whole notebook by id, not filled in.

    Args:
        kind: one of `KINDS`; None for the cells that all kinds share.
    """
    cells = {}
    _, *parts = _PART.split(_text("notebook"))
    for cell_type, tag, name, kinds, source in zip(*(iter(parts),) * 5, strict=True):
        if kinds is not None and kind not in kinds.split():
            continue
        source = source.strip("\n")
        if tag == _CONTINUES:
            cells[name].source += f"\n{source}"
            continue
        metadata = {}
        if tag != _NO_TAG:
            metadata["tags"] = [tag]
        cells[name] = _MAKE_CELL[cell_type](source, metadata=metadata, id=name)
    return cells


def claims_yaml() -> str:
    """The record's lists of claims and errata, as YAML."""
    return _text("claims").strip("\n")


def file_text(kind: str, part: str) -> str:
    """A file of a method or cache, not filled in.

    Args:
        kind: one of `KINDS`.
        part: `method` for the source, `test` for its test.
    """
    return _text(f"{kind}_{part}")


def render(text: str, values: Mapping[str, str]) -> str:
    """The text with each `{{name}}` replaced by its value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8")

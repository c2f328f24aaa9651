"""The anatomy of a paper's notebook: which cells, in which order, with which tags, no outputs."""

from collections import Counter
from collections.abc import Iterator

import nbformat

from .reader import tags_of

# tag -> cell type, in order; the challenges stand after the claims, so that a reader meets the
# method first
ANATOMY = {
    "record": "raw",
    "method": "markdown",
    "parameters": "code",
    "source": "code",
    "run": "code",
    "figure": "code",
    "claims": "code",
    "challenge": "markdown",
    "errata": "code",
    "see-also": "markdown",
}
_REPEATABLE = ("source", "run", "figure", "claims")
_OPTIONAL = ("record", "errata")  # the record has a message of its own; few papers have errata


def cell_faults(notebook: nbformat.NotebookNode, runs: bool) -> Iterator[str]:
    """Faults of the notebook's cells, a line each: order, tags, types, outputs.

    Args:
        notebook: the notebook of a paper.
        runs: does the paper have a method? Code cells are needed only then.
    """
    cells = notebook.cells
    tags_before = []
    if len(cells) < 2 or cells[1].cell_type != "markdown" or not cells[1].source.startswith("# "):
        yield "cell 1 must be a markdown cell with the title, '# ...'"
    for index, cell in enumerate(cells):
        tags = [tag for tag in tags_of(cell) if tag in ANATOMY]
        yield from _tag_faults(index, cell, tags, tags_before)
        tags_before += tags
        if _has_run(cell):
            yield (
                f"cell {index}: has outputs or an execution count; `prunebook check --write` "
                "strips them"
            )
    for tag, count in Counter(tags_before).items():
        if count > 1 and tag not in _REPEATABLE:
            yield f"{count} cells tagged '{tag}'; one is allowed: join them, or take the tag off"
    for tag, cell_type in ANATOMY.items():
        needed = tag not in _OPTIONAL and (runs or cell_type != "code")
        if needed and tag not in tags_before:
            place = _place(tag, list(ANATOMY))
            yield f"no cell tagged '{tag}'; add a {cell_type} cell with this tag {place}"
    if "see-also" in tags_before and "see-also" not in tags_of(cells[-1]):
        yield "the cell tagged 'see-also' must be the last; move it to the end"


def strip(notebook: nbformat.NotebookNode) -> bool:
    """Take outputs and execution counts off the notebook; returns whether there were any."""
    run = [cell for cell in notebook.cells if _has_run(cell)]
    for cell in run:
        cell.outputs = []
        cell.execution_count = None
    return bool(run)


def _has_run(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and (bool(cell.outputs) or cell.execution_count is not None)


def _tag_faults(
    index: int,
    cell: nbformat.NotebookNode,
    tags: list[str],
    tags_before: list[str],
) -> Iterator[str]:
    """Faults of one cell's tags, given the tags of the cells before it."""
    order = list(ANATOMY)
    kind = cell.cell_type
    if len(tags) > 1:
        yield f"cell {index}: more than one of the tags {', '.join(tags)}; keep one"
    elif not tags and index > 0 and kind != "markdown":
        allowed = ", ".join(tag for tag, cell_type in ANATOMY.items() if cell_type == kind)
        yield f"cell {index}: a {kind} cell without a tag; allowed: {allowed}"
    for tag in tags:
        where = f"cell {index}: "
        if kind != ANATOMY[tag]:
            yield f"{where}a cell tagged '{tag}' must be {ANATOMY[tag]}, not {kind}"
        if tags_before and order.index(tag) < order.index(tags_before[-1]):
            yield f"{where}'{tag}' comes after '{tags_before[-1]}'; the order is {', '.join(order)}"


def _place(tag: str, order: list[str]) -> str:
    """Where the cell with this tag belongs: after the last needed one before it."""
    if tag == order[-1]:
        return "at the end"
    before = [other for other in order[: order.index(tag)] if other != "errata"]
    return f"after the one tagged '{before[-1]}'"

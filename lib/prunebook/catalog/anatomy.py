"""The anatomy of a paper's notebook: which cells it has, in which order, with which tags, stripped
of outputs."""

from collections import Counter
from collections.abc import Iterator

import nbformat

from .reader import tags_of

# tag -> cell type, in order
ANATOMY = {
    "record": "raw",
    "challenge": "markdown",
    "method": "markdown",
    "parameters": "code",
    "source": "code",
    "run": "code",
    "figure": "code",
    "claims": "code",
    "see-also": "markdown",
}
_REPEATABLE = ("source", "run", "figure", "claims")


def cell_faults(notebook: nbformat.NotebookNode, runs: bool) -> Iterator[str]:
    """Faults of the notebook's cells, a line each: order, tags, types, outputs.

    Args:
        runs: does the paper have a method? Code cells are needed only then.
    """
    cells = notebook.cells
    found = []
    if len(cells) < 2 or cells[1].cell_type != "markdown" or not cells[1].source.startswith("# "):
        yield "cell 1 must be a markdown cell with the title, '# ...'"
    for index, cell in enumerate(cells):
        tags = [tag for tag in tags_of(cell) if tag in ANATOMY]
        yield from _tag_faults(index, cell, tags, found)
        found += tags
        if _has_run(cell):
            yield f"cell {index}: has outputs or an execution count; `prunebook check --write` strips them"
    for tag, count in Counter(found).items():
        if count > 1 and tag not in _REPEATABLE:
            yield f"{count} cells tagged '{tag}'; one is allowed: join them, or take the tag off"
    for tag, cell_type in ANATOMY.items():
        if tag not in found and tag != "record" and (runs or cell_type != "code"):
            yield f"no cell tagged '{tag}'; add a {cell_type} cell with this tag {_place(tag)}"
    if "see-also" in found and "see-also" not in tags_of(cells[-1]):
        yield "the cell tagged 'see-also' must be the last; move it to the end"


def strip(notebook: nbformat.NotebookNode) -> bool:
    """Take outputs and execution counts off the notebook; were there any?"""
    run = [cell for cell in notebook.cells if _has_run(cell)]
    for cell in run:
        cell.outputs = []
        cell.execution_count = None
    return bool(run)


def _has_run(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and (bool(cell.outputs) or cell.execution_count is not None)


def _tag_faults(
    index: int, cell: nbformat.NotebookNode, tags: list[str], found: list[str]
) -> Iterator[str]:
    """Faults of one cell's tags; `found` holds those of the cells before it."""
    order = list(ANATOMY)
    if len(tags) > 1:
        yield f"cell {index}: more than one of the tags {', '.join(tags)}; keep one"
    elif not tags and index > 0 and cell.cell_type != "markdown":
        allowed = ", ".join(
            tag for tag, cell_type in ANATOMY.items() if cell_type == cell.cell_type
        )
        yield f"cell {index}: a {cell.cell_type} cell without a tag; allowed: {allowed}"
    for tag in tags:
        if cell.cell_type != ANATOMY[tag]:
            yield f"cell {index}: a cell tagged '{tag}' must be {ANATOMY[tag]}, not {cell.cell_type}"
        if found and order.index(tag) < order.index(found[-1]):
            yield f"cell {index}: '{tag}' comes after '{found[-1]}'; the order is {', '.join(order)}"


def _place(tag: str) -> str:
    """Where the cell with this tag belongs."""
    order = list(ANATOMY)
    return (
        "at the end"
        if tag == order[-1]
        else f"after the one tagged '{order[order.index(tag) - 1]}'"
    )

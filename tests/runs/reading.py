"""What a run has left behind and said, as tests read it."""

import nbformat


def outputs(book, slug, profile="quick"):
    """The text that the executed notebook printed."""
    path = book.root / "_build" / "executed" / profile / f"{slug}.ipynb"
    cells = nbformat.read(path, 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def statuses(summary):
    return {outcome.name: outcome.status for outcome in summary.outcomes}

"""What a run has left behind and said, as tests read it, and whether its processes live."""

import time
from pathlib import Path

import nbformat


def outputs(book, slug, profile="quick"):
    """The text that the executed notebook printed."""
    path = book.root / "_build" / "executed" / profile / f"{slug}.ipynb"
    cells = nbformat.read(path, 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def statuses(summary):
    return {outcome.name: outcome.status for outcome in summary.outcomes}


def wait_for(condition, seconds=60):
    """The first value of `condition()` that is true, asked for ten times a second."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)
    return value


def is_gone(pid: int) -> bool:
    """Has the process ended, whether or not its parent has been told?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"

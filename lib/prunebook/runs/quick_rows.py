"""The fingerprint of a paper's quick run: what it measured, without what depends on the machine.

A recorded run keeps the fingerprint of its day. The record is valid as long as the present quick
run measures the same, whatever code has moved meanwhile.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..catalog.reader import read_notebook
from ..notebook.claims import CLAIM_MIME
from ..notebook.quick import QUICK
from ..notebook.results import RESULTS_MIME
from ..notebook.tables import is_number
from .executed import current_key, read_execution
from .notebooks import Runnable

# Columns for times and memory, which say more of the machine than of the method.
MACHINE_COLUMNS = (
    "seconds",
    "latency",
    "tokens_per_second",
    "evaluation_tokens_per_second",
    "peak_memory",
    "machine_busy",
)
# Another processor moves last digits and single bits of a mask.
_RELATIVE = 0.02
_ABSOLUTE = 1e-4

Rows = Sequence[Mapping[str, Any]]


def outputs_of(notebook: Any, mime: str) -> list[dict[str, Any]]:
    """What the outputs of a notebook hold of one type, in their order.

    Args:
        notebook: an executed notebook.
        mime: the type, e.g. `RESULTS_MIME`.
    """
    return [data[mime] for data in bundles_of(notebook) if mime in data]


def bundles_of(notebook: Any) -> list[dict[str, Any]]:
    """The outputs of a notebook that have data: MIME type -> content."""
    bundles = []
    for cell in notebook.cells:
        bundles += [output.data for output in cell.get("outputs", []) if "data" in output]
    return bundles


def read_quick_run(
    root: Path, runnable: Runnable
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """The fingerprint of a notebook's quick run and its claims; None if it is not up to date.

    Args:
        root: folder of the book.
        runnable: the notebook.

    Raises:
        UserError: the notebook or the profiles cannot be read.
    """
    execution = read_execution(root, QUICK, runnable.name)
    if execution is None or execution.key != current_key(root, QUICK, runnable):
        return None
    notebook = read_notebook(execution.path)
    return fingerprint(outputs_of(notebook, RESULTS_MIME)), outputs_of(notebook, CLAIM_MIME)


def fingerprint(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all tables without times and memory.

    Args:
        results: tables, as a notebook's outputs hold them.
    """
    rows = []
    for table in results:
        for row in table["rows"]:
            rows.append({name: row[name] for name in row if name not in MACHINE_COLUMNS})
    return rows


def first_change(recorded: Rows, present: Rows) -> str | None:
    """The first difference of two fingerprints in words; None where they are the same.

    Args:
        recorded: the fingerprint in a record.
        present: that of the present quick run. Numbers may differ by 2 %.
    """
    if len(recorded) != len(present):
        return f"the quick run has {len(present)} rows, was {len(recorded)}"
    for old, new in zip(recorded, present, strict=True):
        label = new.get("label") or new.get("method") or "a row"
        for name in [*old, *(name for name in new if name not in old)]:
            if not _same(old.get(name), new.get(name)):
                return f"{label}, {name}: {_word(new.get(name))}, was {_word(old.get(name))}"
    return None


def _same(old: Any, new: Any) -> bool:
    """Are two cells the same, numbers up to the tolerance?"""
    if is_number(old) and is_number(new):
        return math.isclose(old, new, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return old == new


def _word(value: Any) -> str:
    """A cell as text."""
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)

"""The verdicts that pages and boards show: those of a judging run, or those on record."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import nbformat

from ..notebook.claims import CLAIM_MIME
from ..notebook.tables import claim_html
from ..runs.records import Run


def shown_claims(claims: Sequence[Mapping[str, Any]], run: Run | None) -> list[dict[str, Any]]:
    """The claims of a notebook that judges nothing, with the verdicts on record.

    Args:
        claims: the claims in the outputs of a quick run; empty for a notebook without outputs.
        run: the recorded run to take verdicts from; None where there is none.

    Returns:
        The notebook's claims in their order, then those that only the record has. A verdict from
        the record has its origin as the text `recorded`.
    """
    if run is None:
        return [dict(claim) for claim in claims]
    on_record = {claim["key"]: {**claim, "recorded": run.origin} for claim in run.claims}
    shown = []
    for claim in claims:
        shown.append(on_record.pop(claim["key"], dict(claim)))
    return [*shown, *on_record.values()]


def with_verdicts(
    notebook: nbformat.NotebookNode, claims: Sequence[Mapping[str, Any]]
) -> nbformat.NotebookNode:
    """A copy of an executed notebook whose boxes show `claims`.

    Claims without a box follow the last box; a notebook without boxes stays as it is.
    """
    changed = copy.deepcopy(notebook)
    waiting = {claim["key"]: claim for claim in claims}
    last_cell = None
    for cell in changed.cells:
        for output in cell.get("outputs", []):
            if CLAIM_MIME in output.get("data", {}):
                last_cell = cell
                claim = waiting.pop(output.data[CLAIM_MIME]["key"], None)
                if claim is not None:
                    output.data |= _bundle(claim)
    if last_cell is not None:
        for claim in waiting.values():
            last_cell.outputs.append(nbformat.v4.new_output("display_data", _bundle(claim)))
    return changed


def _bundle(claim: Mapping[str, Any]) -> dict[str, Any]:
    return nbformat.from_dict({CLAIM_MIME: dict(claim), "text/html": claim_html(claim)})

"""Checking the recorded runs: files that cannot be read, papers that are gone, what has changed."""

from collections.abc import Sequence
from pathlib import Path

from ..catalog import Paper
from ..errors import UserError
from .notebooks import of_paper
from .quick_rows import first_change, read_quick_run
from .records import FOLDER, Run, read_record, record_files


def read_all(root: Path) -> tuple[list[Run], list[str]]:
    """The recorded runs that can be read, and one line for each file that cannot."""
    runs = []
    faults = []
    for path in record_files(root):
        try:
            runs += read_record(path)
        except UserError as error:
            faults.append(str(error))
    return runs, faults


def check_records(root: Path, papers: Sequence[Paper]) -> tuple[list[str], list[str]]:
    """What is wrong with the recorded runs, and what a machine for records could mend.

    Args:
        root: folder of the book.
        papers: the papers of the book.

    Returns:
        Faults: files that cannot be read, and records of papers that are not in the book. Notes:
        records that have changed since, and claims that a record lacks. A contributor without the
        hardware can mend no note, so a note is no fault.
    """
    runs, faults = read_all(root)
    by_slug = {paper.slug: paper for paper in papers}
    notes = []
    for run in runs:
        file = f"{FOLDER}/{run.file}"
        paper = by_slug.get(run.slug)
        if paper is None:
            faults.append(f"{file}: slug: {run.slug!r} is no paper of the book")
            continue
        if not run.is_earlier:
            notes += [f"{file}: {note}" for note in _notes(root, run, paper)]
    return faults, notes


def _notes(root: Path, run: Run, paper: Paper) -> list[str]:
    """What has changed since a run was recorded, and which claims it lacks."""
    notes = []
    quick_run = read_quick_run(root, of_paper(paper))
    if quick_run is not None:
        change = first_change(run.quick, quick_run[0])
        if change:
            again = f"prunebook run {run.slug} --profile {run.profile} --record"
            notes.append(f"changed since it was recorded ({change}); record it again: {again}")
    recorded = {claim["key"] for claim in run.claims}
    stated = [claim.key for claim in paper.record.claims if claim.not_testable is None]
    missing = [key for key in stated if key not in recorded]
    if missing:
        notes.append(f"claims: has no {', '.join(missing)}")
    return notes

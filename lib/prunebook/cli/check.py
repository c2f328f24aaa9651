"""The command `check`: what is wrong with papers, generated tables and recorded runs."""

from pathlib import Path
from typing import Any

import click

from .. import catalog
from ..errors import UserError


@click.command()
@click.argument("papers", nargs=-1, metavar="[PAPER]...")
@click.option(
    "--write",
    is_flag=True,
    help="Strip outputs; bring the README's table and the challenge page up to date.",
)
@click.pass_context
def check(ctx: click.Context, papers: tuple[str, ...], write: bool):
    """Check papers, or all of them with contents, generated tables and recorded runs.

    The exit code is 2 if anything is wrong. A line that begins with `note:` is no fault: a record
    that has changed since needs a machine to make it again.
    """
    root = catalog.find_root()
    problems = [str(problem) for problem in catalog.check(root, papers, write, _counts(root))]
    notes = []
    if not papers:
        faults, notes = _check_records(root)
        problems += faults
    for line in [*problems, *(f"note: {note}" for note in notes)]:
        click.echo(line)
    if problems:
        ctx.exit(2)
    count = len(set(papers)) or len(catalog.read_papers(root))
    checked = "record, cells, tags, links, contents, method and test"
    if not papers:
        checked += ", tables, records"
    click.echo(f"{count} paper{'s' * (count != 1)} checked, nothing to mend: {checked}")


def _counts(root: Path) -> dict[str, Any]:
    """Slug -> recorded counts of verdicts; none while a paper or the profiles are unreadable."""
    from ..site.verdicts import recorded_counts

    try:
        return recorded_counts(root)
    except UserError:  # the check says so in its own words
        return {}


def _check_records(root: Path) -> tuple[list[str], list[str]]:
    """Faults and notes of the recorded runs; none while a paper is unreadable."""
    from ..runs.record_check import check_records

    try:
        return check_records(root, catalog.read_papers(root))
    except UserError:  # as above
        return [], []

"""The commands that run, build and show the book: `run`, `build`, `preview`, `serve`, `export`."""

import webbrowser
from pathlib import Path

import click

from .. import catalog
from ..errors import UserError

_profile_option = click.option(
    "--profile", default="quick", show_default=True, help="A profile of papers/profiles.yml."
)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_profile_option
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Notebooks at once; by default what fits, for quick."
)
@click.option("--force", is_flag=True, help="Run also what has not changed.")
@click.option(
    "--since", metavar="REV", help="Only pages that the changes since a git revision reach."
)
@click.option("--only-changed", is_flag=True, help="Only pages that uncommitted changes reach.")
@click.option("--fail-fast", is_flag=True, help="Start no further page once one has failed.")
@click.option(
    "--record",
    is_flag=True,
    help="Keep what papers measured under benchmarks/results/, for verdicts and boards.",
)
@click.pass_context
def run(
    ctx: click.Context,
    names: tuple[str, ...],
    profile: str,
    since: str | None,
    only_changed: bool,
    record: bool,
    **settings: bool | int | None,
):
    """Run papers and pages with code, e.g. wanda or concepts/evaluation, or all of them.

    The exit code is 1 if one of them failed.
    """
    from ..runs.records import check_recordable, record_runs
    from ..runs.run import run_notebooks

    if since and only_changed:
        raise UserError(f"--since {since} and --only-changed say two things; give one of them")
    if only_changed:
        since = "HEAD"
    root = catalog.find_root()
    # A run that cannot be recorded is refused before the work, not after it.
    if record:
        papers = _recorded_papers(root, names)
        fingerprints = check_recordable(root, profile, papers)
    summary = run_notebooks(root, list(names), profile=profile, since=since, **settings)
    if record:
        for path in record_runs(root, papers, profile, fingerprints):
            click.echo(path)
    if summary.failed:
        ctx.exit(1)


def _recorded_papers(root: Path, names: tuple[str, ...]) -> list[catalog.Paper]:
    """The papers that run and have one of the names; all that run for no name."""
    papers = [paper for paper in catalog.read_papers(root) if paper.record.is_implemented]
    if not names:
        return papers
    return [paper for paper in papers if paper.slug in names]


@click.command()
def build():
    """Build the site from the notebooks that have been run."""
    from ..site.build import build_site

    click.echo(build_site(catalog.find_root()))


@click.command()
@click.argument("paper")
@_profile_option
@click.option("--no-open", is_flag=True, help="Only print where the page is.")
@click.pass_context
def preview(ctx: click.Context, paper: str, profile: str, no_open: bool):
    """Run one paper, build the site and open the paper's page; exit code 1 if the notebook failed.

    What has not changed since the last run is not run again; other papers may be without results.
    """
    from ..runs.run import run_notebooks
    from ..site.build import build_site

    root = catalog.find_root()
    catalog.find_paper(root, paper)
    if run_notebooks(root, [paper], profile=profile).failed:
        ctx.exit(1)
    page = build_site(root) / "papers" / f"{paper}.html"
    click.echo(page)
    if not no_open:
        webbrowser.open(page.as_uri())


@click.command()
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def serve(port: int):
    """Serve the built site on this machine."""
    from ..site.serve import serve as serve_site

    serve_site(catalog.find_root(), port)


@click.command()
@click.option(
    "--out",
    default="_build/exports",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the files.",
)
def export(out: Path):
    """Write catalog.json with its schema, references.bib, feed.xml, sitemap.xml and colab/.

    They are the same files as on the site.
    """
    from ..site.exports import export as export_book

    for path in export_book(catalog.find_root(), out):
        click.echo(path)

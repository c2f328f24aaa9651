"""The commands of a contributor: `new`, `add-method`, `check`, `preview`."""

import webbrowser
from typing import get_args

import click

from .. import catalog
from ..catalog.metadata import Metadata, NoAnswerError, fetch_metadata
from ..catalog.scaffold import Draft, add_method, check_new, new_paper
from ..catalog.schema import Venue

_KINDS = get_args(Venue.model_fields["kind"].annotation)


def parse_tags(tags: tuple[str, ...]) -> list[tuple[str, str]]:
    """`FACET=VALUE` options as pairs.

    Raises:
        UserError: an unknown facet or value.
    """
    pairs = [tag.partition("=")[::2] for tag in tags]
    for facet, value in pairs:
        catalog.concept_anchor(facet, value)
    return pairs


@click.command()
@click.argument("identifier", metavar="ARXIV_ID|OPENREVIEW_ID")
@click.option(
    "--slug", required=True, help="Name of the notebook and of the method, as deeper-layers."
)
@click.option(
    "--record-only", is_flag=True, help="Record and text alone; the paper is marked 'not run yet'."
)
@click.option("--title")
@click.option("--author", "authors", multiple=True, help="Repeatable, in the paper's order.")
@click.option("--year", type=int)
@click.option("--venue", help="As ICLR, or arXiv for a preprint.")
@click.option("--kind", type=click.Choice(_KINDS), help="Of the venue.")
@click.option("--short", help="Short name; by default the title up to its colon.")
@click.option(
    "--tag", "tags", multiple=True, metavar="FACET=VALUE", help="As type=Structured; repeatable."
)
def new(identifier, slug, record_only, title, authors, year, venue, kind, short, tags):
    """Begin a paper: notebook, method, test, registry and contents from one template.

    Title, authors, year and venue are looked up, or asked for where there is no network.
    """
    root = catalog.find_root()
    check_new(root, identifier, slug, record_only)
    by_facet = {}
    for facet, value in parse_tags(tags):
        by_facet.setdefault(facet, []).append(value)
    known = Metadata(title, authors, year, venue, kind)
    if not (title and authors and year and venue):
        known = _completed(known, _looked_up(identifier))
    kind = known.kind or ("preprint" if known.venue == "arXiv" else "conference")
    draft = Draft(
        identifier, slug, known.title, known.authors, known.year, known.venue, kind, short, by_facet
    )
    _tell(new_paper(root, draft, record_only), slug)


@click.command("add-method")
@click.argument("slug")
def add(slug: str):
    """Begin the method of a paper that is 'not run yet': source, test, registry, code cells."""
    _tell(add_method(catalog.find_root(), slug), slug)


@click.command()
@click.argument("papers", nargs=-1, metavar="[PAPER]...")
@click.option(
    "--write",
    is_flag=True,
    help="Strip outputs; bring the README's table and the challenge page up to date.",
)
@click.pass_context
def check(ctx: click.Context, papers: tuple[str, ...], write: bool):
    """Check papers, or all of them with contents and generated tables; exit code 2 if anything is
    wrong."""
    root = catalog.find_root()
    problems = catalog.check(root, papers, write=write)
    for problem in problems:
        click.echo(problem)
    if problems:
        ctx.exit(2)
    count = len(set(papers)) or len(catalog.read_papers(root))
    what = "record, cells, tags, links, contents, method and test"
    click.echo(
        f"{count} paper{'s' * (count != 1)} checked, nothing to mend: "
        f"{what}{'' if papers else ', tables'}"
    )


@click.command()
@click.argument("paper")
@click.option(
    "--profile", default="quick", show_default=True, help="A profile of papers/profiles.yml."
)
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


def _looked_up(identifier: str) -> Metadata:
    """What the paper's service says; one line and nothing known where it says nothing."""
    try:
        return fetch_metadata(identifier)
    except NoAnswerError as error:
        click.echo(f"prunebook: {error}; please type what it would have said", err=True)
        return Metadata()


def _completed(given: Metadata, found: Metadata) -> Metadata:
    """What was given, or else found, or else is asked for."""
    title = given.title or found.title or click.prompt("Title")
    authors = (
        given.authors or found.authors or _people(click.prompt("Authors, separated by commas"))
    )
    year = given.year or found.year or click.prompt("Year", type=int)
    venue = given.venue or found.venue or click.prompt("Venue, as ICLR, or arXiv for a preprint")
    kind = given.kind or (None if given.venue else found.kind)
    if found.note:
        click.echo(f"remark of the authors, perhaps on the venue: {found.note}")
    return Metadata(title, authors, year, venue, kind)


def _people(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _tell(paths, slug: str) -> None:
    """What was written, and what to do next."""
    for path in paths:
        click.echo(path)
    click.echo(f"now fill in what `prunebook check {slug}` lists")

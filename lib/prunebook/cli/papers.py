"""The commands on papers: `list` and `show`; for authors, `new` and `add-method`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import click

from .. import catalog
from ..catalog.draft import Draft, read_draft
from ..catalog.metadata import Metadata, NoAnswerError, fetch_metadata
from ..catalog.reader import read_notebook
from ..catalog.registry import read_registry
from ..catalog.scaffold import add_method, check_new, new_paper
from ..catalog.schema import Code, Venue
from ..catalog.templates import KINDS
from ..errors import UserError
from ..notebook.tables import results_text
from .options import json_option, print_json

_VENUE_KINDS = get_args(Venue.model_fields["kind"].annotation)


def parse_tags(tags: tuple[str, ...]) -> list[tuple[str, str]]:
    """`FACET=VALUE` options as pairs.

    Raises:
        UserError: an unknown facet or value.
    """
    pairs = [tag.partition("=")[::2] for tag in tags]
    for facet, value in pairs:
        catalog.concept_anchor(facet, value)
    return pairs


def _as_dict(paper: catalog.Paper) -> dict[str, Any]:
    """A paper's record with the path of its notebook, as JSON has it."""
    return {"notebook": f"papers/{paper.path.name}", **paper.record.model_dump(mode="json")}


def _tags(record: catalog.Record) -> list[str]:
    """Each facet as `type=Unstructured,Semi-structured`."""
    return [f"{name}={','.join(facet.values)}" for name, facet in record.facets().items()]


def _state(record: catalog.Record) -> str:
    """Whether the paper's notebook runs, in words."""
    if record.is_implemented:
        return "runs"
    return "not run yet"


def _code_text(code: Code | None) -> str | None:
    """The address of a paper's code with its kind and licence; None for no code."""
    if code is None:
        return None
    kind = "official" if code.official else "community"
    return f"{code.url} ({kind}, {code.license or 'no licence stated'})"


@click.command("list")
@click.option(
    "--tag", "tags", multiple=True, metavar="FACET=VALUE", help="Only with this tag; repeatable."
)
@json_option
def list_papers(tags: tuple[str, ...], as_json: bool):
    """List the papers."""
    required = parse_tags(tags)
    papers = [
        paper
        for paper in catalog.read_papers(catalog.find_root())
        if all(value in paper.record.facets()[facet].values for facet, value in required)
    ]
    if as_json:
        print_json([_as_dict(paper) for paper in papers])
    elif papers:
        click.echo(results_text([_row(paper.record) for paper in papers]))


def _row(record: catalog.Record) -> dict[str, Any]:
    """A paper's row in the list."""
    return {
        "year": record.year,
        "slug": record.slug,
        "short": record.short,
        "venue": f"{record.venue.name} {record.venue.year}",
        "tags": " ".join(_tags(record)),
        "state": _state(record),
    }


@click.command()
@click.argument("slug")
@json_option
def show(slug: str, as_json: bool):
    """Show the record of one paper."""
    paper = catalog.find_paper(catalog.find_root(), slug)
    if as_json:
        print_json(_as_dict(paper))
        return
    record = paper.record
    lines = {
        "authors": ", ".join(record.authors),
        "venue": f"{record.venue.name} {record.venue.year} ({record.venue.kind})",
        "paper": record.url,
        "code": _code_text(record.code),
        "tags": "  ".join(_tags(record)),
        "method": record.implemented_by or _state(record),
        "notebook": f"papers/{paper.path.name}",
    }
    click.echo(f"{record.heading}\n\n{record.takeaway}\n")
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<10}{value}")
    for link in record.links:
        click.echo(f"{link.label.lower():<10}{link.url}")


@click.command()
@click.argument("identifier", metavar="ARXIV_ID|OPENREVIEW_ID")
@click.option("--slug", required=True, help="Name of notebook and method, e.g. deeper-layers.")
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the method; see above.")
@click.option("--record-only", is_flag=True, help="No method: the paper is marked 'not run yet'.")
@click.option("--title", help="Title of the paper; looked up by default, like what follows.")
@click.option("--author", "authors", multiple=True, help="Repeatable, in the paper's order.")
@click.option("--year", type=int, help="Year of the publication.")
@click.option("--venue", help="E.g. ICLR, or arXiv for a preprint.")
@click.option("--venue-kind", type=click.Choice(_VENUE_KINDS), help="Kind of the venue.")
@click.option("--short", help="Short name, and the class's; by default the title up to its colon.")
@click.option(
    "--tag", "tags", multiple=True, metavar="FACET=VALUE", help="E.g. type=Structured; repeatable."
)
def new(
    identifier: str,
    slug: str,
    kind: str | None,
    record_only: bool,
    title: str | None,
    authors: tuple[str, ...],
    year: int | None,
    venue: str | None,
    venue_kind: str | None,
    short: str | None,
    tags: tuple[str, ...],
):
    """Begin a paper: its notebook and contents, and a method with its test and registry entry.

    Kinds: `score` ranks the single weights of each linear; `structured` cuts blocks, heads or
    neurons out; `training` trains weights; `cache` drops entries of the key-value cache.

    Title, authors, year and venue are looked up, or asked for where there is no network.
    """
    if (kind is None) != record_only:
        raise UserError(f"give either --kind, one of {', '.join(KINDS)}, or --record-only")
    root = catalog.find_root()
    check_new(root, identifier, slug, kind)
    values_by_facet = _by_facet(parse_tags(tags))
    typed = Metadata(title, authors, year, venue, venue_kind)
    draft = _draft(identifier, slug, typed, short, values_by_facet)
    written = new_paper(root, draft, kind)
    _print_next_steps(written, slug, f"{_chosen_names(root, slug)}; --short gives others")


def _chosen_names(root: Path, slug: str) -> str:
    """The short name of a paper that may be a draft, and the class of its method if it has one."""
    path = root / "papers" / f"{slug}.ipynb"
    names = f"short name {read_draft(read_notebook(path), path).short!r}"
    entry = read_registry(root).get(slug)
    if entry is not None:
        names += f", class {entry.class_name}"
    return names


def _draft(
    identifier: str,
    slug: str,
    typed: Metadata,
    short: str | None,
    tags: dict[str, list[str]],
) -> Draft:
    """What is known of a new paper: from the options, the paper's service and the user."""
    metadata = typed
    if not (typed.title and typed.authors and typed.year and typed.venue):
        metadata = _completed(typed, _looked_up(identifier, typed))
    return Draft(
        identifier,
        slug,
        metadata.title,
        metadata.authors,
        metadata.year,
        metadata.venue,
        metadata.kind or _usual_kind(metadata.venue),
        short,
        tags,
    )


def _by_facet(tags: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Facet -> its values, of pairs as `parse_tags` gives them."""
    values = {}
    for facet, value in tags:
        values.setdefault(facet, []).append(value)
    return values


def _usual_kind(venue: str) -> str:
    """The kind of a venue of which only the name is known."""
    if venue == "arXiv":
        return "preprint"
    return "conference"


@click.command("add-method")
@click.argument("slug")
@click.option(
    "--kind", type=click.Choice(KINDS), required=True, help="As for `prunebook new --help`."
)
def add(slug: str, kind: str):
    """Begin the method of a paper that is 'not run yet': source, test, registry, code cells."""
    root = catalog.find_root()
    _print_next_steps(add_method(root, slug, kind), slug, _chosen_names(root, slug))


def _can_ask() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def _missing_options(known: Metadata) -> str:
    """The options that would give what is not known of a paper; empty where all is."""
    values = {
        "--title": known.title,
        "--author": known.authors,
        "--year": known.year,
        "--venue": known.venue,
        "--venue-kind": known.kind or known.venue,
    }
    return " ".join(option for option, value in values.items() if not value)


def _looked_up(identifier: str, typed: Metadata) -> Metadata:
    """What the paper's service says; where it does not answer, nothing, and a line says so.

    Raises:
        UserError: there is no such paper; or no answer, and nobody to ask.
    """
    try:
        return fetch_metadata(identifier)
    except NoAnswerError as error:
        if not _can_ask():
            raise UserError(f"{error}; give {_missing_options(typed)}") from None
        click.echo(f"prunebook: {error}; please type what it would have said", err=True)
        return Metadata()


def _completed(typed: Metadata, looked_up: Metadata) -> Metadata:
    """The metadata of a paper, complete: the user is asked for what is in neither of the two.

    Args:
        typed: what the options say; it goes first.
        looked_up: what the paper's service says.

    Raises:
        UserError: something is in neither, and nobody is there to ask.
    """
    known = Metadata(
        typed.title or looked_up.title,
        typed.authors or looked_up.authors,
        typed.year or looked_up.year,
        typed.venue or looked_up.venue,
    )
    missing = _missing_options(known)
    if missing and not _can_ask():
        raise UserError(f"not all of the paper is known; give {missing}")
    title = known.title or click.prompt("Title")
    authors = known.authors or _people(click.prompt("Authors, separated by commas"))
    year = known.year or click.prompt("Year", type=int)
    venue = known.venue or click.prompt("Venue, e.g. ICLR, or arXiv for a preprint")
    kind = typed.kind
    # The kind that was found belongs to the venue that was found, not to one of the options.
    if kind is None and not typed.venue:
        kind = looked_up.kind
    if looked_up.note:
        click.echo(f"remark of the authors, perhaps on the venue: {looked_up.note}")
    return Metadata(title, authors, year, venue, kind)


def _people(text: str) -> tuple[str, ...]:
    """The names in a text that separates them by commas."""
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _print_next_steps(paths: Iterable[Path], slug: str, names: str) -> None:
    """Print which files were written, which names were chosen, and what to do next."""
    for path in paths:
        click.echo(path)
    click.echo(names)
    click.echo(f"now fill in what `prunebook check {slug}` lists")

"""The book as files for other programs: catalogue, references, feed and sitemap.

They stand at fixed addresses of the site's root and depend on the sources and the executed
notebooks alone, not on the day of the build.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..notebook.tables import VERDICTS
from .address import Address
from .bibtex import bibtex
from .feeds import FEED, feed, page_address, sitemap
from .schema import Record

CATALOG = "catalog.json"
SCHEMA = "catalog.schema.json"
REFERENCES = "references.bib"
SITEMAP = "sitemap.xml"
VERSION = 2
TITLE = "The Pruning Book"
_Day = Annotated[datetime.date, Field(strict=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Run(_Model):
    """The execution that the site shows: its profile and parameters, its day, its seconds."""

    profile: str
    date: _Day
    seconds: float
    parameters: dict[str, Any]


class Results(_Model):
    """A table that the notebook measured: its rows, and what is needed to measure them again."""

    rows: list[dict[str, Any]]
    protocol: dict[str, Any]
    versions: dict[str, str] = {}
    date: _Day | None = None
    commit: str | None = None


_Verdict = Literal[tuple(VERDICTS)]
Verdicts = Annotated[
    dict[_Verdict, int],
    Field(
        description="How many of the paper's own claims have each verdict; none while the notebook "
        "has not been run."
    ),
]


class RunVerdict(_Model):
    """The verdict of one run on a claim."""

    verdict: _Verdict
    profile: str
    device: str | None
    model: str | None
    windows: int | None
    date: _Day
    version: Annotated[
        int, Field(description="Version of the record; 1 was judged by two standard errors.")
    ]
    recorded: Annotated[bool, Field(description="False for a run of this build.")]


class Outcome(_Model):
    """A claim with its verdict, which is that of the run with the most power."""

    key: str
    origin: Annotated[
        str | None,
        Field(description="`paper`, or who asked beyond the paper: `ours`, `reviewers`."),
    ]
    statement: str
    paper: Annotated[str, Field(description="The paper's number, as text.")]
    source: str
    ours: str | None
    verdict: _Verdict
    reason: str | None
    runs: Annotated[
        list[RunVerdict], Field(description="All verdicts, that with the most power first.")
    ]


class Entry(Record):
    """A paper's record, and what the book has made of it.

    `state` is `not run yet` without a method or an implementation, `not executed` without outputs
    in this build, `outdated` with outputs from before the last change to notebook, library or
    profile, and else `executed`.
    """

    page: Annotated[str, Field(description="The paper's page in the book.")]
    notebook: Annotated[str, Field(description="Its source.")]
    paper: Annotated[str | None, Field(description="The paper itself.")]
    state: Literal["not run yet", "not executed", "outdated", "executed"]
    verdicts: Verdicts
    beyond: Annotated[
        dict[_Verdict, int],
        Field(default={}, description="The same for claims that the paper does not make."),
    ]
    outcomes: Annotated[list[Outcome], Field(default=[], description="Each claim.")]
    run: Run | None
    results: list[Results]
    measured_under: Annotated[
        str | None,
        Field(
            default=None,
            description="The profile that `results` are of: that of the run with the most power.",
        ),
    ]


class Catalog(_Model):
    """All papers of the book, latest year first, then by title."""

    schema_address: Annotated[
        str, Field(alias="schema", description="Where this version's JSON Schema is.")
    ]
    version: Annotated[
        Literal[VERSION],
        Field(description="Grows when a field goes or changes its meaning; new fields may come."),
    ]
    title: str
    site: str
    repository: str
    branch: str
    updated: Annotated[
        datetime.date | None, Field(description="The day the latest paper came into the book.")
    ]
    papers: list[Entry]


def make_entry(record: Record, address: Address, outcome: Mapping[str, Any]) -> Entry:
    """The paper's entry in the catalogue.

    Args:
        record: the paper's record.
        address: where the project lives.
        outcome: the fields of `Entry` from `state` on, as JSON gives them.
    """
    places = {
        "page": page_address(address, record.slug),
        "notebook": f"{address.repository}/blob/{address.branch}/papers/{record.slug}.ipynb",
        "paper": record.url,
    }
    return Entry.model_validate({**record.model_dump(), **places, **outcome})


def render_exports(
    address: Address, entries: Sequence[Entry], pages: Sequence[str]
) -> dict[str, str]:
    """File name -> content.

    Args:
        address: where the project lives.
        entries: the papers in the tables' order.
        pages: the site's pages without their ending, the landing page first.
    """
    catalog = Catalog(
        schema=f"{address.site}{SCHEMA}",
        version=VERSION,
        title=TITLE,
        site=address.site,
        repository=address.repository,
        branch=address.branch,
        updated=max((entry.added for entry in entries), default=None),
        papers=list(entries),
    )
    others = pages[1:]
    return {
        CATALOG: _json(catalog.model_dump(mode="json", by_alias=True)),
        SCHEMA: _json(json_schema(address)),
        REFERENCES: bibtex(entries),
        FEED: feed(address, TITLE, entries),
        SITEMAP: sitemap([address.site, *(f"{address.site}{page}.html" for page in others)]),
    }


def json_schema(address: Address) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the catalogue, made from its models."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{address.site}{SCHEMA}",
    }
    return head | Catalog.model_json_schema(by_alias=True, mode="serialization")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

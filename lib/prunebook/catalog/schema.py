"""The record of a paper: the front matter of its notebook, validated.

Types are strict (an unquoted `arxiv: 2306.11695` is a number and refused) and unknown fields are
errors.
"""

import datetime
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from ..errors import UserError
from ..notebook.stated import ORIGINS
from .fields import ArxivId, ListedField, Module, OpenReviewId, Slug, Strict, Text, Url, Year
from .record_faults import TWICE, describe
from .vocabulary import VOCABULARY


class Venue(Strict):
    """Where the paper appeared, or was sent to."""

    name: Text
    year: Year
    kind: Literal["conference", "workshop", "journal", "preprint", "submission"]


class Code(Strict):
    """The paper's code; `license` is None where its repository states none."""

    url: Url
    license: Text | None
    official: bool


class Link(Strict):
    """Further reading: blog, reviews, discussion."""

    label: Text
    url: Url


class RunsIn(Strict):
    """A runtime that can use the result, and how that is known."""

    runtime: Text
    status: Literal["tested", "documented", "removed"]
    date: datetime.date
    note: str = ""
    source: Url | None = None


class Correction(Strict):
    """Where the record says something else than the list that the book grew out of, and why."""

    field: ListedField
    listed: Text
    reason: Text
    source: Url | None = None


class StatedClaim(Strict):
    """A claim that the paper's page checks, or says why it cannot be tested."""

    key: Annotated[Slug, Field(description="Name of the claim, unique in the paper.")]
    origin: Annotated[
        Literal[ORIGINS],
        Field(
            description="`paper`: the paper claims it; `ours`: the book asks it beyond that; "
            "`reviewers`: the paper's reviewers asked it."
        ),
    ]
    statement: Annotated[Text, Field(description="The claim, in the book's own words.")]
    number: Annotated[Text, Field(description="The paper's number, as text.")]
    source: Annotated[Text, Field(description="Table, figure or section that it stands in.")]
    not_testable: Annotated[
        Text | None, Field(description="Why the claim cannot be tested here, if it cannot.")
    ] = None


class Erratum(Strict):
    """Where the released code does something else than the paper says."""

    paper: Annotated[Text, Field(description="What the paper says.")]
    code: Annotated[Text, Field(description="What the released code does.")]
    effect: Annotated[Text, Field(description="What that changes, as far as it is known.")]
    source: Annotated[Text, Field(description="Where it stands in the paper and in the code.")]


class Facet(Strict):
    """The values of one facet, from `VOCABULARY`, and a free `detail`."""

    values: list[str]
    detail: Text | None = None

    @field_validator("values")
    @classmethod
    def _once_each(cls, values: list[str]) -> list[str]:
        if len(set(values)) < len(values):
            raise ValueError("has a value twice")
        return values


def _facet(name: str) -> type[Facet]:
    allowed = Literal[VOCABULARY[name]]
    return create_model(name.title(), __base__=Facet, values=(list[allowed], Field(min_length=1)))


Tags = create_model("Tags", __base__=Strict, **{name: (_facet(name), ...) for name in VOCABULARY})


class Record(Strict):
    """One paper.

    Attributes:
        year: the paper's section in the tables.
        claims: what the notebook checks, in its order.
        errata: what the released code does otherwise than the paper.
        added: the day the paper came into the book.
        corrections: differences from the list's row, if the paper had one.
        method: name of the method or cache; None where there is none.
        implementation: module of the library that the notebook runs, for a paper that proposes
            neither method nor cache, e.g. a format of weights.
    """

    slug: Slug
    title: Text
    short: Text
    authors: Annotated[list[Text], Field(min_length=1)]
    year: Year
    venue: Venue
    arxiv: ArxivId | None
    openreview: OpenReviewId | None
    code: Code | None
    links: list[Link] = Field([])
    takeaway: Text
    tags: Tags
    runs_in: list[RunsIn] = Field([])
    challenge: Slug
    added: datetime.date
    corrections: list[Correction] = Field([])
    claims: list[StatedClaim] = Field([])
    errata: list[Erratum] = Field([])
    method: Text | None
    implementation: Module | None = None

    @field_validator("implementation")
    @classmethod
    def _without_method(cls, module: str | None, info: ValidationInfo) -> str | None:
        """Refuse a module beside a method, whose registry names its module already."""
        method = info.data.get("method")
        if module is not None and method is not None:
            raise ValueError(f"stands beside the method {method!r}; leave one of them out")
        return module

    @field_validator("claims")
    @classmethod
    def _one_key_each(cls, claims: list[StatedClaim]) -> list[StatedClaim]:
        """Refuse two claims of one key: results are recorded under it."""
        keys = [claim.key for claim in claims]
        for index, key in enumerate(keys):
            first = keys.index(key)
            if first < index:
                words = f"claims {first} and {index} have the key {key!r}; give each its own"
                # The text is not a template: what looks like a field in it is none.
                raise PydanticCustomError(TWICE, "{words}", {"words": words})
        return claims

    @property
    def implemented_by(self) -> str | None:
        """The method, the cache or the module that the notebook runs; None where it runs none."""
        return self.method or self.implementation

    @property
    def is_implemented(self) -> bool:
        """Whether the notebook runs."""
        return self.implemented_by is not None

    @property
    def url(self) -> str | None:
        """The paper's page: arXiv, or else OpenReview, or None."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return self.reviews_url

    @property
    def reviews_url(self) -> str | None:
        """The paper's OpenReview forum, or None."""
        if self.openreview is None:
            return None
        return f"https://openreview.net/forum?id={self.openreview}"

    @property
    def heading(self) -> str:
        """`Short: title`, or the title alone where it begins with the short name."""
        if self.title.casefold().startswith(self.short.casefold()):
            return self.title
        return f"{self.short}: {self.title}"

    def facets(self) -> dict[str, Facet]:
        """Facet name -> its values and detail, in the vocabulary's order."""
        return {name: getattr(self.tags, name) for name in VOCABULARY}


# field that holds models -> the model
_MODELS = {
    "paper": Record,
    "venue": Venue,
    "code": Code,
    "links": Link,
    "runs_in": RunsIn,
    "corrections": Correction,
    "claims": StatedClaim,
    "errata": Erratum,
    "tags": Tags,
    **dict.fromkeys(VOCABULARY, Facet),
}


class RecordError(UserError):
    """A record that breaks the schema: one line; `problems` has a line for each fault."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.problems = list(problems)
        line = f"{source}: {problems[0]}"
        if len(problems) > 1:
            line += f" (and {len(problems) - 1} more: see `prunebook check`)"
        super().__init__(line)


def parse_record(data: Any, source: str) -> Record:
    """The record in the data of a notebook's first cell.

    Args:
        data: what the YAML under `paper:` holds.
        source: name of the file, for the error.

    Raises:
        RecordError: a field is missing, unknown or has a value that is not allowed.
    """
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        problems = [describe(fault, _MODELS) for fault in error.errors()]
        raise RecordError(source, problems) from None

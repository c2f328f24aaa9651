"""The record of a paper: the front matter of its notebook, validated.

Types are strict (an unquoted `arxiv: 2306.11695` is a number and refused) and unknown fields are
errors.
"""

import datetime
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from ..errors import UserError

# facet -> its values, in the order of the concept pages
VOCABULARY = {
    "type": (
        "Unstructured",
        "Semi-structured",
        "Structured",
        "Structured-Depth",
        "Head/Neuron",
        "Other",
    ),
    "criteria": (
        "Magnitude",
        "Wanda",
        "RIA",
        "Hessian",
        "Perplexity",
        "Angular Distance",
        "Activation",
        "KL",
        "Trainable",
        "Other",
    ),
    "budget": ("Sparsity", "Layer Numbers", "Parameter", "FLOPs"),
    "data": ("Data free", "Calibration", "Small", "Medium", "Large", "Other"),
    "retrain": ("Without", "Efficient", "Extensive", "Scratch", "Other"),
    "weight": ("Frozen", "Update", "Other"),
}

CONCEPT_PAGES = {
    "type": "concepts/types.md",
    "criteria": "concepts/criteria.md",
    "budget": "concepts/budget.md",
    "data": "concepts/data.md",
    "retrain": "concepts/finetune.md",
    "weight": "concepts/weight_update.md",
}

SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
# What a text field must look like, in words: pattern -> rule.
_PATTERNS = {
    SLUG: "lower-case letters, digits and single dashes",
    r"^\d{4}\.\d{4,5}$": "an arXiv id like 2306.11695",
    r"^[A-Za-z0-9_-]+$": "an OpenReview forum id like PxoFut3dWW",
    r"""^https?://[^\s<>"'`\\{}^]+$""": "an address "
    "that starts "
    "with http:// or "
    "https://, without "
    "quotes or brackets",
    rf"^(title|venue|code|links|tags\.({'|'.join(VOCABULARY)}))$": (
        "title, venue, code, links or a tag field as tags.type"
    ),
}
_ID, _ARXIV, _OPENREVIEW, _URL, _LISTED_FIELD = (
    Annotated[str, Field(pattern=pattern)] for pattern in _PATTERNS
)
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_Text = Annotated[str, Field(min_length=1)]
_Year = Annotated[int, Field(ge=1980, le=2100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        """No text hides characters that reorder what is shown (Trojan Source, CVE-2021-42574) or
        are no XML."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (found := _HIDDEN.search(text)):
                raise ValueError(f"holds the invisible character U+{ord(found[0]):04X}; remove it")
        return value


class Venue(_Strict):
    """Where the paper appeared, or was sent to."""

    name: _Text
    year: _Year
    kind: Literal["conference", "workshop", "journal", "preprint", "submission"]


class Code(_Strict):
    """The paper's code; `license` is None where its repository states none."""

    url: _URL
    license: _Text | None
    official: bool


class Link(_Strict):
    """Further reading: blog, reviews, discussion."""

    label: _Text
    url: _URL


class RunsIn(_Strict):
    """A runtime that can use the result, and how that is known."""

    runtime: _Text
    status: Literal["tested", "documented", "removed"]
    date: datetime.date
    note: str = ""
    source: _URL | None = None


class Correction(_Strict):
    """Where the record says something else than the list that the book grew out of, and why."""

    field: _LISTED_FIELD
    listed: _Text
    reason: _Text
    source: _URL | None = None


class Facet(_Strict):
    """The values of one facet, from `VOCABULARY`, and a free `detail`."""

    values: list[str]
    detail: _Text | None = None

    @field_validator("values")
    @classmethod
    def _once_each(cls, values: list[str]) -> list[str]:
        if len(set(values)) < len(values):
            raise ValueError("has a value twice")
        return values


def _facet(name: str) -> type[Facet]:
    allowed = Literal[VOCABULARY[name]]
    return create_model(name.title(), __base__=Facet, values=(list[allowed], Field(min_length=1)))


Tags = create_model("Tags", __base__=_Strict, **{name: (_facet(name), ...) for name in VOCABULARY})


class Record(_Strict):
    """One paper. `year` is its section in the tables; `method` is None while its notebook does not
    run.

    `added` is the day it came into the book; `corrections` are its differences from the list's row,
    if it had one.
    """

    slug: _ID
    title: _Text
    short: _Text
    authors: Annotated[list[_Text], Field(min_length=1)]
    year: _Year
    venue: Venue
    arxiv: _ARXIV | None
    openreview: _OPENREVIEW | None
    code: Code | None
    links: list[Link] = []
    takeaway: _Text
    tags: Tags
    runs_in: list[RunsIn] = []
    challenge: _ID
    added: datetime.date
    corrections: list[Correction] = []
    method: _Text | None

    @property
    def url(self) -> str | None:
        """The paper's page: arXiv, or else OpenReview, or None."""
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return self.reviews_url

    @property
    def reviews_url(self) -> str | None:
        """The paper's OpenReview forum, or None."""
        return f"https://openreview.net/forum?id={self.openreview}" if self.openreview else None

    @property
    def heading(self) -> str:
        """`Short: title`, or the title alone where it begins with the short name."""
        if self.title.casefold().startswith(self.short.casefold()):
            return self.title
        return f"{self.short}: {self.title}"

    def facets(self) -> dict[str, Facet]:
        """Facet name -> its values and detail, in the vocabulary's order."""
        return {name: getattr(self.tags, name) for name in VOCABULARY}


class RecordError(UserError):
    """A record that breaks the schema: one line; `problems` has a line for each fault."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.problems = list(problems)
        more = (
            f" (and {len(problems) - 1} more: see `prunebook check`)" if len(problems) > 1 else ""
        )
        super().__init__(f"{source}: {problems[0]}{more}")


def concept_anchor(facet: str, value: str) -> str:
    """The label of a tag's heading on its concept page, as `criteria-angular-distance`.

    Raises:
        UserError: unknown facet or value.
    """
    if facet not in VOCABULARY:
        raise UserError(f"unknown facet {facet!r}; allowed: {', '.join(VOCABULARY)}")
    if value not in VOCABULARY[facet]:
        raise UserError(f"unknown {facet} value {value!r}; allowed: {', '.join(VOCABULARY[facet])}")
    return f"{facet}-{re.sub('[^a-z0-9]+', '-', value.lower()).strip('-')}"


def parse_record(data: Any, source: str) -> Record:
    """The record in `data`, what the YAML under `paper:` holds; `source` names the file in errors.

    Raises:
        RecordError: a field is missing, unknown or has a value that is not allowed.
    """
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        raise RecordError(source, [_describe(fault) for fault in error.errors()]) from None


# What a field must be, in words: pydantic's fault -> rule.
_TYPES = {
    "string_type": "text (quote it)",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a mapping of fields",
    "date_type": "a date, YYYY-MM-DD",
}
_MODELS = {
    "paper": Record,
    "venue": Venue,
    "code": Code,
    "links": Link,
    "runs_in": RunsIn,
    "corrections": Correction,
    "tags": Tags,
    **dict.fromkeys(VOCABULARY, Facet),
}


def _describe(fault: dict[str, Any]) -> str:
    """One of pydantic's faults as `paper.field[0]: what was given; what is allowed`."""
    field = "paper" + "".join(
        f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault["loc"]
    )
    given = fault["input"]
    context = fault.get("ctx", {})
    match fault["type"]:
        case "missing":
            return f"{field}: missing"
        case "extra_forbidden":
            parent = next(
                key for key in reversed(["paper", *fault["loc"][:-1]]) if isinstance(key, str)
            )
            return f"{field}: unknown field; allowed: {', '.join(_MODELS[parent].model_fields)}"
        case "literal_error":
            return f"{field}: {given!r} is not allowed; allowed: {context['expected'].replace(' or ', ', ')}"
        case "string_pattern_mismatch":
            return f"{field}: {given!r} must be {_PATTERNS[context['pattern']]}"
        case "string_too_short" | "too_short":
            return f"{field}: must not be empty"
        case "value_error":
            return f"{field}: {given!r} {context['error']}"
        case _:
            expected = _TYPES.get(fault["type"]) or fault["msg"].removeprefix("Input should be ")
            return f"{field}: {given!r} must be {expected}"

"""What a field of a record may hold: texts and their patterns, and the strict model of all."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .vocabulary import VOCABULARY

SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
ARXIV = r"^\d{2}(0[1-9]|1[0-2])\.\d{4,5}$"  # year, month, number
_OPENREVIEW = r"^[A-Za-z0-9_-]+$"
_URL = r"""^https?://[^\s<>"'`\\{}^]+$"""
_MODULE = r"^prunebook(\.[a-z_][a-z0-9_]*){2,}$"
_LISTED_FIELD = rf"^(title|venue|code|links|tags\.({'|'.join(VOCABULARY)}))$"
# pattern of a text field -> the same in words
PATTERNS = {
    SLUG: "lower-case letters, digits and single dashes",
    ARXIV: "an arXiv id like 2306.11695",
    _OPENREVIEW: "an OpenReview forum id like PxoFut3dWW",
    _URL: "an address that starts with http:// or https://, without quotes or brackets",
    _MODULE: "a module of the library like prunebook.methods.flash_llm.tiled_csl",
    _LISTED_FIELD: "title, venue, code, links or a tag field as tags.type",
}
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

Slug = Annotated[str, Field(pattern=SLUG)]
ArxivId = Annotated[str, Field(pattern=ARXIV)]
OpenReviewId = Annotated[str, Field(pattern=_OPENREVIEW)]
Url = Annotated[str, Field(pattern=_URL)]
Module = Annotated[str, Field(pattern=_MODULE)]
ListedField = Annotated[str, Field(pattern=_LISTED_FIELD)]
Text = Annotated[str, Field(min_length=1)]
Year = Annotated[int, Field(ge=1980, le=2100)]


class Strict(BaseModel):
    """A model that converts nothing and knows all its fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        """Refuse texts that hide characters.

        Some reorder what is shown (Trojan Source, CVE-2021-42574), others are no XML.
        """
        items = [value]
        if isinstance(value, list):
            items = value
        for text in filter(lambda item: isinstance(item, str), items):
            hidden = _HIDDEN.search(text)
            if hidden:
                code = f"U+{ord(hidden[0]):04X}"
                raise ValueError(f"holds the invisible character {code}; remove it")
        return value

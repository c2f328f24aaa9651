"""What arXiv and OpenReview say of a paper.

Both are asked only by `prunebook new`, with a short time-out.
"""

import datetime
import json
import re
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from ..errors import UserError, first_line
from .fields import ARXIV as ARXIV_PATTERN

ARXIV = "https://export.arxiv.org/api/query?id_list="
OPENREVIEW = "https://api2.openreview.net/notes?id="
ARXIV_ID = re.compile(ARXIV_PATTERN)
OPENREVIEW_ID = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_-]{9,}")
_LARGEST = 1_000_000
_ATOM = {"atom": "http://www.w3.org/2005/Atom", "arxiv": "http://arxiv.org/schemas/atom"}


class NoAnswerError(UserError):
    """The service cannot be reached, or its answer cannot be read.

    What it would say can be typed instead.
    """


@dataclass(frozen=True)
class Metadata:
    """What is known of a paper; None where it is not known.

    Attributes:
        title: title of the paper.
        authors: names of the authors, in the paper's order.
        year: year in which it appeared.
        venue: conference, journal or archive, without the year.
        kind: kind of the venue, as `Venue.kind` in the record.
        note: a remark of the authors, e.g. where the paper was accepted.
    """

    title: str | None = None
    authors: tuple[str, ...] = ()
    year: int | None = None
    venue: str | None = None
    kind: str | None = None
    note: str | None = None


def fetch_metadata(
    identifier: str, *, arxiv: str = ARXIV, openreview: str = OPENREVIEW, timeout: float = 5.0
) -> Metadata:
    """Ask arXiv or OpenReview for the paper with this id.

    Args:
        identifier: an arXiv id like 2306.11695, or else an OpenReview forum id like PxoFut3dWW.
        arxiv: address that an arXiv id is appended to.
        openreview: address that an OpenReview id is appended to.
        timeout: seconds for the whole answer.

    Raises:
        NoAnswerError: no answer in time, or none that can be read.
        UserError: there is no such paper.
    """
    if ARXIV_ID.fullmatch(identifier):
        return _from_atom(_get(arxiv + identifier, timeout), identifier)
    return _from_note(_get(openreview + quote(identifier), timeout), identifier)


def _get(address: str, timeout: float) -> str:
    """The text at an address, of at most 1 MB."""
    service = address.split("/")[2]
    request = urllib.request.Request(address, headers={"User-Agent": "prunebook"})
    deadline = time.monotonic() + timeout
    body = b""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            while chunk := answer.read1(65536):
                body += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no full answer within {timeout:g} s")
                if len(body) > _LARGEST:
                    raise NoAnswerError(f"{service} sent more than {_LARGEST} bytes")
        return body.decode()
    except urllib.error.HTTPError as error:
        raise NoAnswerError(f"{service} answered {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise NoAnswerError(
            f"{service} cannot be reached: {first_line(getattr(error, 'reason', None) or error)}"
        ) from None
    except UnicodeDecodeError:
        raise NoAnswerError(f"{service} sent no text") from None


def _from_atom(text: str, identifier: str) -> Metadata:
    """The one entry of arXiv's feed; a document type, which could define entities, is refused."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise NoAnswerError("arXiv's answer has a document type, which no feed needs")
    try:
        entries = ET.fromstring(text).findall("atom:entry", _ATOM)
    except (ET.ParseError, ValueError) as error:
        raise NoAnswerError(f"arXiv's answer is no feed: {first_line(error)}") from None

    def text_of(entry: ET.Element, name: str) -> str | None:
        return " ".join((entry.findtext(name, namespaces=_ATOM) or "").split()) or None

    if not entries or f"/abs/{identifier}" not in (text_of(entries[0], "atom:id") or ""):
        raise UserError(f"arXiv has no paper {identifier!r}")
    entry = entries[0]
    authors = tuple(
        filter(
            None, (text_of(author, "atom:name") for author in entry.findall("atom:author", _ATOM))
        )
    )
    published = re.match(r"\d{4}", text_of(entry, "atom:published") or "")
    title = text_of(entry, "atom:title")
    note = text_of(entry, "arxiv:journal_ref") or text_of(entry, "arxiv:comment")
    if not (title and authors and published):
        raise NoAnswerError(f"arXiv's answer lacks the title, authors or year of {identifier}")
    return Metadata(title, authors, int(published[0]), "arXiv", "preprint", note)


def _from_note(text: str, identifier: str) -> Metadata:
    """The one note of OpenReview's answer."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoAnswerError(f"OpenReview's answer is no JSON: {first_line(error)}") from None
    notes = _mapping(answer).get("notes")
    if notes == []:
        raise UserError(f"OpenReview shows no paper {identifier!r}")
    note = {}
    if isinstance(notes, list):
        note = _mapping(notes[0])
    content = _mapping(note.get("content"))
    title, authors, venue = (_value(content.get(name)) for name in ("title", "authors", "venue"))
    created = note.get("pdate") or note.get("cdate")
    if not (
        _is_text(title) and isinstance(authors, list) and authors and all(map(_is_text, authors))
    ):
        raise NoAnswerError(f"OpenReview's answer lacks the title or authors of {identifier}")
    year = None
    if isinstance(created, int) and 0 < created < 4e12:  # milliseconds
        year = datetime.datetime.fromtimestamp(created / 1000, datetime.UTC).year
    name = kind = venue_year = None
    if _is_text(venue):
        name, kind, venue_year = _venue(venue)
    people = tuple(" ".join(author.split()) for author in authors)
    return Metadata(" ".join(title.split()), people, venue_year or year, name, kind)


def _value(field: Any) -> Any:
    """The value of a note's field, which stands alone or as `{"value": ...}`."""
    if isinstance(field, dict):
        return field.get("value")
    return field


def _mapping(value: Any) -> dict:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _venue(text: str) -> tuple[str | None, str | None, int | None]:
    """Name, kind and year in what OpenReview calls the venue; None where it says no year.

    Examples are `ICLR 2024 poster` and `Submitted to ICLR 2024`.
    """
    match = re.match(
        r"(?P<sent>Submitted to )?(?P<name>.+?) (?P<year>(19|20)\d\d)\b", " ".join(text.split())
    )
    if not match:
        return None, None, None
    kind = "conference"
    if "workshop" in text.lower():
        kind = "workshop"
    if match["sent"] or re.search("submi|reject|withdr", text, re.IGNORECASE):
        kind = "submission"
    return match["name"], kind, int(match["year"])

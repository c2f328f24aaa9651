"""What is known of a paper before its notebook is written, and what the templates are filled with.

What is not known is left as `FILL-IN`, which `prunebook check` refuses.
"""

import datetime
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from .metadata import ARXIV_ID
from .placeholders import MARK
from .reader import named_as_file, record_data, shown
from .schema import Record, parse_record
from .tables import as_markdown
from .vocabulary import VOCABULARY

_LONGEST_CLASS = 24
_LINE = 100  # characters of a line of code


@dataclass(frozen=True)
class Draft:
    """What is known of a paper before its notebook is written.

    Attributes:
        identifier: an arXiv or OpenReview id.
        slug: name of notebook and method.
        title: title of the paper.
        authors: names of the authors, in the paper's order.
        year: year in which it appeared.
        venue: conference, journal or archive, without the year.
        venue_kind: `Venue.kind` of the record.
        short: short name; None stands for the title up to its colon.
        tags: facet -> its values, as far as they are known.
    """

    identifier: str
    slug: str
    title: str
    authors: Sequence[str]
    year: int
    venue: str
    venue_kind: str
    short: str | None
    tags: Mapping[str, Sequence[str]]


def record_values(draft: Draft, method: str | None, lists: str) -> dict[str, str]:
    """What the template's record is filled with, as YAML.

    Args:
        draft: what is known of the paper.
        method: name of its method or cache; None while it has none.
        lists: the lists of claims and errata; empty while there is no method.
    """
    ids = {"arxiv": None, "openreview": None}
    service = "openreview"
    if ARXIV_ID.fullmatch(draft.identifier):
        service = "arxiv"
    ids[service] = draft.identifier
    title = _on_one_line(draft.title)
    fields = {
        "slug": draft.slug,
        "title": title,
        "short": _on_one_line(draft.short or "") or title.partition(":")[0],
        "authors": [_on_one_line(name) for name in draft.authors],
        "year": draft.year,
        "venue": {
            "name": _on_one_line(draft.venue),
            "year": draft.year,
            "kind": draft.venue_kind,
        },
        **ids,
        "added": datetime.date.today(),
        "method": method,
    }
    values = {name: _yaml(value) for name, value in fields.items()}
    values["tags"] = "\n".join(_tag_lines(draft.tags))
    values["lists"] = ""
    if lists:
        values["lists"] = "\n" + textwrap.indent(lists, "  ")
    return values


def read_draft(notebook: nbformat.NotebookNode, path: Path) -> Record:
    """The record in a notebook; what is to be filled in stands for any allowed value.

    Args:
        notebook: the notebook of a paper, filled in or not.
        path: where it is or will be, for the messages; the file's name must be the slug.

    Raises:
        UserError: no record cell, bad YAML, a field that is known already with a value that is not
            allowed, or a slug unlike the file name.
    """
    data = record_data(notebook, path)
    if isinstance(data, dict):
        tags = {facet: {"values": [VOCABULARY[facet][0]]} for facet in VOCABULARY}
        data = {**data, "code": None, "tags": tags}
    return named_as_file(parse_record(data, shown(path)), path)


def code_values(record: Record, module: str, class_name: str) -> dict[str, str]:
    """What the cells after the record, the source and the test are filled with.

    Args:
        record: record of the paper.
        module: module of its method or cache.
        class_name: class of its method or cache.
    """
    return {
        "slug": record.slug,
        "module": module,
        "class": class_name,
        "url": record.url,
        "heading": as_markdown(record.heading),
        "reference": _reference(record),
    }


def class_name_of(record: Record) -> str:
    """The short name as a class's name, or the slug where that is none."""
    name = re.sub("[^0-9A-Za-z]+", "", record.short)
    if not name[:1].isalpha() or len(record.short) > _LONGEST_CLASS:
        name = "".join(part[:1].upper() + part[1:] for part in record.slug.split("-"))
    return name[0].upper() + name[1:]


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _tag_lines(tags: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line of YAML for each facet: its values, or which there are to choose from."""
    for facet, allowed in VOCABULARY.items():
        values = list(tags.get(facet, ())) or [f"{MARK}: one or more of {', '.join(allowed)}"]
        yield f"    {facet}: {{values: {_yaml(values)}}}"


def _yaml(value: Any) -> str:
    """The value on one line, for a place inside a document."""
    text = yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    )
    return text.strip()[1:-1]


def _reference(record: Record) -> str:
    """The paper as a docstring cites it: `Sun et al., A Simple and ... (arXiv 2306.11695)`."""
    names = [author.split()[-1] for author in record.authors]
    people = " and ".join(names)
    if len(names) > 2:
        people = f"{names[0]} et al."
    place = f"OpenReview {record.openreview}"
    if record.arxiv:
        place = f"arXiv {record.arxiv}"
    text = f"{people}, {record.title} ({place})".replace("\\", r"\\").replace('"""', "'''")
    return textwrap.fill(f"{text}.", width=_LINE, break_long_words=False)

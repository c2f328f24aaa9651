"""The book: everything that the site is made from, read from the disk once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalog import Address, Paper, challenge_notes, read_address
from ..errors import UserError
from ..runs.installed import versions_of
from ..runs.records import Run, read_runs
from .changed import changed_dates
from .published import Published, PublishedPage, read_published, read_published_pages
from .texts import FOLDERS, LANDING, read_texts

CHALLENGES = "challenge/challenge.md"
CONFIG = "_config.yml"
CONTENTS = "_toc.yml"
_NEEDED = (CONFIG, CONTENTS, LANDING, *FOLDERS, CHALLENGES)
_ORDERING = "benchmarks/results/ordering-cpu.json"
_ORDERING_FORM = ("prunebook-ordering", 1)  # kind and version


@dataclass(frozen=True)
class Book:
    """The book as the site shows it. Pages are functions of it, which read nothing themselves.

    Attributes:
        root: the book's folder.
        address: the project's public addresses.
        contents: the text of the table of contents, `_toc.yml`.
        page_names: the pages that it lists, without their ending; the landing page comes first.
        texts: path of each Markdown page -> its text; the challenge page has all papers' notes.
        papers: the papers in the tables' order.
        pages: the pages that are text notebooks, by name.
        recorded_runs: what notebooks measured on other hardware or other days.
        ordering_record: the methods at equal sparsity; None where they were not measured.
        last_changed: path in the book -> day of the last commit that touched it, `YYYY-MM-DD`.
    """

    root: Path
    address: Address
    contents: str
    page_names: tuple[str, ...]
    texts: dict[str, str]
    papers: tuple[Published, ...]
    pages: tuple[PublishedPage, ...]
    recorded_runs: tuple[Run, ...]
    ordering_record: dict[str, Any] | None
    last_changed: dict[str, str]

    @property
    def bare_papers(self) -> list[Paper]:
        """The papers without what their notebooks measured."""
        return [published.paper for published in self.papers]


def read_book(root: Path) -> Book:
    """Read the book in the folder `root`.

    Raises:
        UserError: a page or a folder of pages is missing or cannot be read, or a page could have
            the build run something; or the book's packages are not installed.
    """
    for name in _NEEDED:
        if not (root / name).exists():
            raise UserError(f"{name} is missing in {root}")
    papers = tuple(read_published(root))
    texts = read_texts(root)
    notes = challenge_notes(texts[CHALLENGES], [published.paper for published in papers])
    return Book(
        root=root,
        address=read_address(root),
        contents=(root / CONTENTS).read_text(encoding="utf-8"),
        page_names=tuple(read_page_names(root)),
        texts={**texts, CHALLENGES: notes},
        papers=papers,
        pages=tuple(read_published_pages(root)),
        recorded_runs=tuple(read_runs(root)),
        ordering_record=read_ordering(root),
        last_changed=changed_dates(root),
    )


def read_page_names(root: Path) -> list[str]:
    """Read which pages the table of contents lists, without their ending, the landing page first.

    Raises:
        UserError: the book's packages are not installed.
    """
    versions_of("sphinx-external-toc")
    from sphinx_external_toc.parsing import parse_toc_yaml

    contents = parse_toc_yaml(root / CONTENTS)
    landing = str(contents.root.docname)
    return [landing, *(str(name) for name in contents if name != landing)]


def read_ordering(root: Path) -> dict[str, Any] | None:
    """Read the record of `benchmarks/ordering.py`; None if there is none.

    Raises:
        UserError: the record is unreadable or of another version.
    """
    path = root / _ORDERING
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        form = record["kind"], record["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{_ORDERING} is no readable record: {error}") from error
    if form != _ORDERING_FORM:
        raise UserError(f"{_ORDERING}: kind and version {form} are not {_ORDERING_FORM}")
    return record

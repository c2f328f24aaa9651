"""BibTeX entries of the papers, in UTF-8."""

import re
from collections.abc import Iterable

from .schema import Record

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "$&%#_"},
}
# venue kind -> entry type and the field that holds the venue
_TYPES = {
    "conference": ("inproceedings", "booktitle"),
    "workshop": ("inproceedings", "booktitle"),
    "journal": ("article", "journal"),
    "preprint": ("misc", "howpublished"),
    "submission": ("unpublished", "note"),
}


def bibtex(records: Iterable[Record]) -> str:
    """The file of references: an entry for each record, whose key is the paper's slug.

    Args:
        records: the papers, in the order of the file.
    """
    return "\n".join(map(_entry, records))


def _entry(record: Record) -> str:
    kind, place = _TYPES[record.venue.kind]
    venue = record.venue.name
    if kind == "unpublished":
        venue = f"Submitted to {venue}"
    fields = {
        "title": _title(record.title),
        "author": " and ".join(map(_author, record.authors)),
        place: _escape(venue),
        "year": str(record.venue.year),
    }
    if record.arxiv:
        fields |= {"eprint": record.arxiv, "archiveprefix": "arXiv"}
    if record.url:
        fields["url"] = record.url
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{record.slug},", *lines, "}\n"])


def _title(text: str) -> str:
    """The title with braces around every word that a style must not write in lower case.

    An example is `{SparseGPT}: Massive Language Models`.
    """
    return re.sub(r"[\w:.+]*\w", lambda match: _guarded(match[0]), _escape(text))


def _guarded(word: str) -> str:
    """The word, in braces where its capitals carry meaning.

    They do if one follows the first letter, if one stands beside a digit, and if the word is a
    single capital other than "A".
    """
    inner = any(character.isupper() for character in word[1:])
    mixed = word[0].isupper() and any(character.isdigit() for character in word)
    alone = len(word) == 1 and word.isupper() and word != "A"
    if inner or mixed or alone:
        return f"{{{word}}}"
    return word


def _author(name: str) -> str:
    """The name as `First Last`, in braces where BibTeX would take it apart: at a comma or "and"."""
    escaped = _escape(name)
    if re.search(r",|\band\b", escaped):
        return f"{{{escaped}}}"
    return escaped


def _escape(text: str) -> str:
    """`text` on one line, with what LaTeX takes for markup escaped."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))

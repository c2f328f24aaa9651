"""The papers as data: the record's schema, reading notebooks, generated tables, checks. Needs no
torch."""

from .address import Address, read_address
from .check import Problem, check
from .reader import (
    Paper,
    cell_sources,
    challenge_note,
    find_paper,
    find_root,
    read_paper,
    read_papers,
)
from .registry import method_names
from .schema import CONCEPT_PAGES, VOCABULARY, Record, RecordError, concept_anchor, parse_record
from .tables import challenge_notes, papers_table

__all__ = [
    "CONCEPT_PAGES",
    "VOCABULARY",
    "Address",
    "Paper",
    "Problem",
    "Record",
    "RecordError",
    "cell_sources",
    "challenge_note",
    "challenge_notes",
    "check",
    "concept_anchor",
    "find_paper",
    "find_root",
    "method_names",
    "papers_table",
    "parse_record",
    "read_address",
    "read_paper",
    "read_papers",
]

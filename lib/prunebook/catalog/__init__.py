"""The papers as data: the record's schema, reading notebooks, generated tables, checks.

Needs no torch.
"""

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
from .schema import Erratum, Record, RecordError, StatedClaim, parse_record
from .tables import challenge_notes, papers_table
from .vocabulary import CONCEPT_PAGES, VOCABULARY, concept_anchor

__all__ = [
    "CONCEPT_PAGES",
    "VOCABULARY",
    "Address",
    "Erratum",
    "Paper",
    "Problem",
    "Record",
    "RecordError",
    "StatedClaim",
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

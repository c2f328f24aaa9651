"""Rules that the page of a paper keeps beside its anatomy: claims as data, short and plain code.

A rule takes the notebook and its record and yields one line for each fault; `prunebook check`
enforces all of them.
"""

import re
from collections.abc import Callable, Iterator

import nbformat

from .page_code import checked_keys, code_cells, shown_sources, shows_errata, typed_colours
from .schema import Record

LONGEST_PAGE = 130  # lines of code that are neither blank nor folded
LONGEST_LINE = 100
_SENTENCE = 40  # characters from which on a text counts as a sentence
_MOST_SHOWN = 30  # characters of a line that a message repeats

Rule = Callable[[nbformat.NotebookNode, Record], Iterator[str]]


def claims_are_checked(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """Every claim of the record is checked on the page, or shown as not testable."""
    if not record.is_implemented:  # the page has no code yet
        return
    checked = checked_keys(code_cells(notebook))
    for claim in record.claims:
        if checked.covers(claim.key):
            continue
        if claim.not_testable is None:
            yield (
                f"claim '{claim.key}' is not checked; add `pb.check(\"{claim.key}\", ours=..., "
                "verdict=...)`, or say `not_testable` in the record"
            )
        elif not checked.all_untestable:
            yield f"claim '{claim.key}' is not shown; add `pb.check_rest()` after the other checks"


def checked_keys_are_claims(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """Every key that the page checks is a claim of the record."""
    checked = checked_keys(code_cells(notebook))
    keys = [claim.key for claim in record.claims]
    for key, cell in checked.written.items():
        if key not in keys:
            yield f"cell {cell}: checks {key!r}, which is no claim of the record; add it there"
    for pattern, cell in checked.patterns.items():
        if not any(map(pattern.fullmatch, keys)):
            yield f"cell {cell}: checks keys like {pattern.pattern!r}; the record has none"


def errata_are_shown(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """Errata of the record are shown, and only where there are some."""
    shown = shows_errata(code_cells(notebook))
    if record.errata and record.is_implemented and not shown:
        yield "the record's errata are not shown; add a cell tagged 'errata': pb.show_errata()"
    if shown and not record.errata:
        yield "shows errata, and the record has none; fill them in, or remove pb.show_errata()"


def public_source_is_shown(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """What the page shows of the library has a public name."""
    for cell in code_cells(notebook):
        for source in shown_sources(cell):
            if any(part.startswith("_") for part in source.split(".")):
                yield f"cell {cell.index}: {source} has a private name; show a public one"


def page_is_short(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """The page has few lines of code that are not folded."""
    lines = []
    for cell in code_cells(notebook):
        if not cell.folded:
            lines += [line for line in cell.source.splitlines() if line.strip()]
    if len(lines) > LONGEST_PAGE:
        yield (
            f"{len(lines)} lines of code; at most {LONGEST_PAGE}: shorten them, or fold a study "
            "with the tag 'hide-cell'"
        )


def colours_are_of_the_palette(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """No colour is typed; pages take them from `prunebook.notebook.palette`."""
    for cell in code_cells(notebook):
        for line, colour in typed_colours(cell):
            yield (
                f"cell {cell.index}, line {line}: the colour {colour!r} is typed; take it from "
                "prunebook.notebook.palette"
            )


def lines_are_short(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """No line of code is longer than the page is wide."""
    for cell in code_cells(notebook):
        for number, line in enumerate(cell.source.splitlines(), start=1):
            if len(line) > LONGEST_LINE:
                yield (
                    f"cell {cell.index}, line {number}: {len(line)} characters, at most "
                    f"{LONGEST_LINE}: {line.strip()[:_MOST_SHOWN]}..."
                )


def sentences_stand_once(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """No sentence of the text stands twice, as after a paste."""
    seen = set()
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for sentence in re.split(r"(?<=[.!?])\s+", cell.source):
            sentence = " ".join(sentence.split())
            if len(sentence) >= _SENTENCE and sentence in seen:
                yield f"cell {index}: stands twice on the page: {sentence[:_MOST_SHOWN]}..."
            seen.add(sentence)


RULES: dict[str, Rule] = {
    "claims-checked": claims_are_checked,
    "claims-known": checked_keys_are_claims,
    "errata-shown": errata_are_shown,
    "public-source": public_source_is_shown,
    "short-page": page_is_short,
    "palette": colours_are_of_the_palette,
    "short-lines": lines_are_short,
    "sentences": sentences_stand_once,
}


def rule_faults(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """Faults of a page, a line each.

    Args:
        notebook: the notebook of a paper.
        record: its record.
    """
    for rule in RULES.values():
        yield from rule(notebook, record)

"""Rules that pages keep: claims as data on the page of a paper, short and plain code on all pages.

A rule of papers takes the notebook and its record, a rule of code takes the code cells of a paper
or a concept page. Each yields one line for each fault; `prunebook check` enforces all of them.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import nbformat

from .page_code import (
    CodeCell,
    checked_keys,
    code_cells,
    shown_sources,
    shows_errata,
    text_code_cells,
    typed_colours,
)
from .reader import tags_of
from .schema import Record

LONGEST_PAGE = 130  # lines of code that are neither blank nor folded
LONGEST_LINE = 100
MOST_CHALLENGES = 6
_SENTENCE = 40  # characters from which on a text counts as a sentence
_ITEM = re.compile(r"(?m)^[-*+] +\S")  # of a list that is not inside another
_MOST_SHOWN = 30  # characters of a line that a message repeats

Rule = Callable[[nbformat.NotebookNode, Record], Iterator[str]]
CodeRule = Callable[[Sequence[CodeCell]], Iterator[str]]


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


def challenges_are_a_list(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """The challenges are a list of a few items; whether their cell is there is told elsewhere."""
    for index, cell in enumerate(notebook.cells):
        if "challenge" not in tags_of(cell):
            continue
        count = len(_ITEM.findall(cell.source))
        if not 1 <= count <= MOST_CHALLENGES:
            yield (
                f"cell {index}: {count} challenges; write a list of 1 to {MOST_CHALLENGES} items, "
                "each in the form `- **In a few words.** What goes wrong`"
            )


def public_source_is_shown(cells: Sequence[CodeCell]) -> Iterator[str]:
    """What the page shows of the library has a public name."""
    for cell in cells:
        for source in shown_sources(cell):
            if any(part.startswith("_") for part in source.split(".")):
                yield f"{cell.place()}: {source} has a private name; show a public one"


def page_is_short(cells: Sequence[CodeCell]) -> Iterator[str]:
    """The page has few lines of code that are not folded."""
    lines = []
    for cell in cells:
        if not cell.folded:
            lines += [line for line in cell.source.splitlines() if line.strip()]
    if len(lines) > LONGEST_PAGE:
        yield (
            f"{len(lines)} lines of code; at most {LONGEST_PAGE}: shorten them, or fold a study "
            "with the tag 'hide-cell'"
        )


def colours_are_of_the_palette(cells: Sequence[CodeCell]) -> Iterator[str]:
    """No colour is typed; pages take them from `prunebook.notebook.palette`."""
    for cell in cells:
        for line, colour in typed_colours(cell):
            yield (
                f"{cell.place(line)}: the colour {colour!r} is typed; take it from "
                "prunebook.notebook.palette"
            )


def lines_are_short(cells: Sequence[CodeCell]) -> Iterator[str]:
    """No line of code is longer than the page is wide."""
    for cell in cells:
        for number, line in enumerate(cell.source.splitlines(), start=1):
            if len(line) > LONGEST_LINE:
                yield (
                    f"{cell.place(number)}: {len(line)} characters, at most "
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
    "challenges": challenges_are_a_list,
    "sentences": sentences_stand_once,
}
CODE_RULES: dict[str, CodeRule] = {
    "public-source": public_source_is_shown,
    "short-page": page_is_short,
    "palette": colours_are_of_the_palette,
    "short-lines": lines_are_short,
}


def rule_faults(notebook: nbformat.NotebookNode, record: Record) -> Iterator[str]:
    """Faults of the page of a paper, a line each.

    Args:
        notebook: the notebook of the paper.
        record: its record.
    """
    for rule in RULES.values():
        yield from rule(notebook, record)
    yield from _code_faults(code_cells(notebook))


def text_page_faults(text: str) -> Iterator[str]:
    """Faults in the code of a concept page, a line each.

    Args:
        text: the page in MyST Markdown.
    """
    yield from _code_faults(text_code_cells(text))


def _code_faults(cells: Sequence[CodeCell]) -> Iterator[str]:
    """Faults of the code cells of a page, a line each."""
    for rule in CODE_RULES.values():
        yield from rule(cells)

"""The anatomy of a notebook, one fault at a time."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell
from tests.catalog.checking import STRIP, WANDA, lines
from tests.tiny_book import cell, notebook, record, write

from prunebook.catalog.anatomy import cell_faults, strip

ORDER = "record, method, parameters, source, run, figure, claims, challenge, errata, see-also"


# Cells of the sound notebook: 0 record, 1 title, 2 method, 3 parameters, 4 source, 5 run, 6
# '## Why', 7 and 8 figure, 9 claims, 10 challenge, 11 see-also.
def no_title(cells):
    cells[1].source = "Wanda"


def outputs(cells):
    cells[5].outputs = [new_output("stream", text="hello")]


def execution_count(cells):
    cells[7].execution_count = 3


def two_tags(cells):
    cells[4].metadata.tags = ["source", "run"]


def other_tags_are_free(cells):
    cells[4].metadata.tags = ["hide-input", "source"]


def untagged_code(cells):
    cells.insert(6, new_code_cell("x = 1"))


def untagged_raw(cells):
    cells.insert(6, new_raw_cell("x = 1"))


def wrong_type(cells):
    cells[9] = cell("claims", "text", new_markdown_cell)


def wrong_order(cells):
    cells[4], cells[5] = cells[5], cells[4]


def twice(cells):
    cells.insert(4, cell("parameters", "x = 1"))


def text_after_the_end(cells):
    cells.append(new_markdown_cell("The end"))


def drop(index):
    def change(cells):
        del cells[index]

    change.__name__ = f"drop_{index}"
    return change


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (no_title, ["cell 1 must be a markdown cell with the title, '# ...'"]),
        (outputs, [f"cell 5: {STRIP}"]),
        (execution_count, [f"cell 7: {STRIP}"]),
        (two_tags, ["cell 4: more than one of the tags source, run; keep one"]),
        (other_tags_are_free, []),
        (
            untagged_code,
            [
                "cell 6: a code cell without a tag; allowed: parameters, source, run, figure, "
                "claims, errata"
            ],
        ),
        (untagged_raw, ["cell 6: a raw cell without a tag; allowed: record"]),
        (wrong_type, ["cell 9: a cell tagged 'claims' must be code, not markdown"]),
        (wrong_order, [f"cell 5: 'source' comes after 'run'; the order is {ORDER}"]),
        (twice, ["2 cells tagged 'parameters'; one is allowed: join them, or take the tag off"]),
        (text_after_the_end, ["the cell tagged 'see-also' must be the last; move it to the end"]),
        (
            drop(2),
            [
                "no cell tagged 'method'; add a markdown cell with this tag after the one tagged "
                "'record'"
            ],
        ),
        (
            drop(3),
            [
                "no cell tagged 'parameters'; add a code cell with this tag after the one tagged "
                "'method'"
            ],
        ),
        (
            drop(9),
            [
                "no cell tagged 'claims'; add a code cell with this tag after the one tagged "
                "'figure'"
            ],
        ),
        (drop(11), ["no cell tagged 'see-also'; add a markdown cell with this tag at the end"]),
        (drop(8), []),
    ],
)
def test_anatomy(book, change, messages):
    content = notebook(record())
    change(content.cells)
    write(book, record(), content)
    assert lines(book) == [f"{WANDA}: {message}" for message in messages]


def test_a_missing_challenge_note(book):
    content = notebook(record())
    del content.cells[10]
    write(book, record(), content)
    assert lines(book) == [
        f"{WANDA}: no cell tagged 'challenge'; add a markdown cell with this tag after the one "
        f"tagged 'claims'",
        f"challenge/challenge.md: {WANDA}: needs one cell tagged 'challenge', has 0",
    ]


def test_a_paper_that_does_not_run_needs_no_code():
    content = notebook(record())
    content.cells = [cell for cell in content.cells if cell.cell_type != "code"]
    assert list(cell_faults(content, runs=False)) == []
    missing = [fault.split("'")[1] for fault in cell_faults(content, runs=True)]
    assert missing == ["parameters", "source", "run", "figure", "claims"]


def test_strip_says_whether_there_was_anything():
    content = notebook(record())
    assert not strip(content)
    outputs(content.cells)
    execution_count(content.cells)
    assert strip(content)
    assert (content.cells[5].outputs, content.cells[7].execution_count) == ([], None)
    assert not strip(content)

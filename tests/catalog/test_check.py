import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell

from prunebook.catalog import check, method_names
from prunebook.errors import UserError

from .tiny_book import cell, notebook, other_record, record, write

WANDA = "papers/wanda.ipynb"
STALE = "does not match the notebooks; run `prunebook check --write`"
ORDER = "record, challenge, method, parameters, source, run, figure, claims, see-also"


def lines(book, write=False) -> list[str]:
    found = [str(problem) for problem in check(book, write=write)]
    assert not any("\n" in line for line in found)
    return found


def test_a_sound_book_has_no_problems(book):
    assert lines(book) == []


# Cells of the sound notebook: 0 record, 1 title, 2 challenge, 3 method, 4 parameters, 5 source, 6 run,
# 7 '## Why', 8 and 9 figure, 10 claims, 11 see-also.
def no_title(cells):
    cells[1].source = "Wanda"


def outputs(cells):
    cells[6].outputs = [new_output("stream", text="hello")]


def execution_count(cells):
    cells[8].execution_count = 3


def two_tags(cells):
    cells[5].metadata.tags = ["source", "run"]


def other_tags_are_free(cells):
    cells[5].metadata.tags = ["hide-input", "source"]


def untagged_code(cells):
    cells.insert(7, new_code_cell("x = 1"))


def untagged_raw(cells):
    cells.insert(7, new_raw_cell("x = 1"))


def wrong_type(cells):
    cells[10] = cell("claims", "text", new_markdown_cell)


def wrong_order(cells):
    cells[5], cells[6] = cells[6], cells[5]


def twice(cells):
    cells.insert(5, cell("parameters", "x = 1"))


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
        (outputs, ["cell 6: has outputs or an execution count; strip them"]),
        (execution_count, ["cell 8: has outputs or an execution count; strip them"]),
        (two_tags, ["cell 5: more than one of the tags source, run"]),
        (other_tags_are_free, []),
        (
            untagged_code,
            ["cell 7: a code cell without a tag; allowed: parameters, source, run, figure, claims"],
        ),
        (untagged_raw, ["cell 7: a raw cell without a tag; allowed: record"]),
        (wrong_type, ["cell 10: a cell tagged 'claims' must be code, not markdown"]),
        (wrong_order, [f"cell 6: 'source' comes after 'run'; the order is {ORDER}"]),
        (twice, ["2 cells tagged 'parameters'; one is allowed"]),
        (text_after_the_end, ["the cell tagged 'see-also' must be the last"]),
        (drop(3), ["no cell tagged 'method'"]),
        (drop(4), ["no cell tagged 'parameters'"]),
        (drop(10), ["no cell tagged 'claims'"]),
        (drop(11), ["no cell tagged 'see-also'"]),
        (drop(9), []),
    ],
)
def test_anatomy(book, change, messages):
    content = notebook(record())
    change(content.cells)
    write(book, record(), content)
    assert lines(book) == [f"{WANDA}: {message}" for message in messages]


def test_a_missing_challenge_note(book):
    content = notebook(record())
    del content.cells[2]
    write(book, record(), content)
    assert lines(book) == [
        f"{WANDA}: no cell tagged 'challenge'",
        f"challenge/challenge.md: {WANDA}: needs one cell tagged 'challenge', has 0",
    ]


def test_every_fault_of_a_record_is_listed_and_the_tables_wait(book):
    write(book, record(year=24, stars=5, takeaway="New"))
    readme = (book / "README.md").read_text()
    found = lines(book, write=True)
    assert found[0] == f"{WANDA}: paper.year: 24 must be greater than or equal to 1980"
    assert found[1].startswith(f"{WANDA}: paper.stars: unknown field; allowed: slug, ")
    assert len(found) == 2
    assert (book / "README.md").read_text() == readme


def test_problems_of_all_files_come_together(book):
    (book / WANDA).write_text("{")
    content = notebook(other_record())
    content.cells[0].metadata.tags = []
    write(book, other_record(), content)
    (book / "_toc.yml").write_text("format: jb-book\n")
    found = lines(book)
    assert found[0].startswith("papers/scaling.ipynb: no record: the first cell must be")
    assert found[1].startswith(f"{WANDA}: not a readable notebook: Expecting")
    assert found[2:] == ["_toc.yml: does not list papers/scaling", "_toc.yml: does not list papers/wanda"]


def test_slug_unlike_the_file_name(book):
    write(book, {"slug": "scaling"}, notebook(record()))
    assert lines(book) == ["papers/scaling.ipynb: paper.slug: 'wanda' must be the file's name, 'scaling'"]


def test_unknown_method(book):
    write(book, record(method="wander"))
    assert lines(book) == [
        f"{WANDA}: paper.method: 'wander' is no method; allowed: magnitude, wanda, null",
    ]


def test_table_of_contents_lists_a_paper_that_is_not_there(book):
    with (book / "_toc.yml").open("a") as file:
        file.write("- chapters:\n  - file: papers/ghost\n  - file: concepts/types\n")
    assert lines(book) == ["_toc.yml: lists papers/ghost, which has no notebook"]


def test_unreadable_table_of_contents(book):
    (book / "_toc.yml").write_text("a: [")
    (line,) = lines(book)
    assert line.startswith("_toc.yml: cannot be read: while parsing")


def test_challenge_anchors_are_unique(book):
    write(book, other_record(challenge="wanda-simple-2024"))
    found = lines(book)
    assert (
        found[0]
        == f"{WANDA}: paper.challenge: 'wanda-simple-2024' is already the anchor of papers/scaling.ipynb"
    )
    assert lines(book, write=True) == [found[0]]


def test_stale_tables_are_found_and_written(book):
    write(book, record(takeaway="New words.", title="New title"))
    assert lines(book) == [f"README.md: {STALE}", f"challenge/challenge.md: {STALE}"]
    assert lines(book, write=True) == []
    assert "New words." in (book / "README.md").read_text()
    assert "### Wanda: New title" in (book / "challenge" / "challenge.md").read_text()
    assert lines(book) == []


def test_missing_markers_and_files(book):
    (book / "README.md").write_text("# Book\n")
    (book / "challenge" / "challenge.md").unlink()
    assert lines(book, write=True) == [
        "README.md: needs the markers <!-- papers:begin --> and <!-- papers:end -->, in this order",
        "challenge/challenge.md: cannot be read: No such file or directory",
    ]


def test_check_does_not_change_notebooks(book):
    before = (book / WANDA).read_bytes()
    lines(book, write=True)
    assert (book / WANDA).read_bytes() == before
    assert nbformat.read(book / WANDA, as_version=4).cells[4].metadata.tags == ["parameters"]


@pytest.mark.parametrize("line", ["REGISTRY = {}", "REGISTRY: dict[str, tuple[str, str]] = {}"])
def test_method_names_are_read_without_running_the_file(tmp_path, line):
    path = tmp_path / "methods.py"
    table = '{"magnitude": ("magnitude", "Magnitude"), "wanda": ("wanda", "Wanda")}'
    path.write_text(f"import not_installed\n{line.replace('{}', table)}\n")
    assert method_names(path) == ["magnitude", "wanda"]


def test_method_names_without_a_registry(tmp_path):
    path = tmp_path / "methods.py"
    with pytest.raises(UserError, match="cannot read the method registry"):
        method_names(path)
    path.write_text("OTHER = {}")
    with pytest.raises(UserError, match=r"defines no REGISTRY$"):
        method_names(path)

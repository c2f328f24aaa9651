"""`prunebook check`: all problems of a book together, each once, and what it mends."""

import nbformat
import pytest
from nbformat.v4 import new_output
from tests.catalog.checking import STRIP, WANDA, lines
from tests.tiny_book import notebook, other_record, record, write

from prunebook.catalog import check
from prunebook.errors import UserError

STALE = "does not match the notebooks; run `prunebook check --write`"


def test_a_sound_book_has_no_problems(book):
    assert lines(book) == []


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
    assert found[2:] == [
        "_toc.yml: does not list papers/scaling; add the line `- file: papers/scaling`",
        "_toc.yml: does not list papers/wanda; add the line `- file: papers/wanda`",
    ]


ERRATUM = {"paper": "a", "code": "b", "effect": "none known", "source": "Table 1"}


@pytest.mark.parametrize("field", list(ERRATUM))
def test_a_field_of_an_erratum_that_is_missing_or_no_text_is_one_line(book, field):
    place = f"{WANDA}: paper.errata[1].{field}"
    short = {name: text for name, text in ERRATUM.items() if name != field}
    write(book, record(errata=[ERRATUM, short]))
    assert lines(book) == [f"{place}: missing"]
    write(book, record(errata=[ERRATUM, {**ERRATUM, field: 5}]))
    assert lines(book) == [f"{place}: 5 must be text (quote it)"]


@pytest.mark.parametrize(
    ("errata", "fault"),
    [
        ({"paper": "a"}, ": {'paper': 'a'} must be a list"),
        (["a"], "[0]: 'a' must be a mapping of fields"),
        (None, ": None must be a list"),
    ],
)
def test_errata_of_another_form_are_one_line(book, errata, fault):
    write(book, record(errata=errata))
    assert lines(book) == [f"{WANDA}: paper.errata{fault}"]


def test_slug_unlike_the_file_name(book):
    write(book, {"slug": "scaling"}, notebook(record()))
    assert lines(book) == [
        "papers/scaling.ipynb: paper.slug: 'wanda' must be the file's name, 'scaling'"
    ]


def test_unknown_method(book):
    write(book, record(method="wander"))
    assert lines(book) == [
        f"{WANDA}: paper.method: 'wander' is no method; allowed: magnitude, wanda, null",
    ]


def test_table_of_contents_lists_a_paper_that_is_not_there(book):
    with (book / "_toc.yml").open("a") as file:
        file.write("- chapters:\n  - file: papers/ghost\n  - file: concepts/types\n")
    assert lines(book) == ["_toc.yml: lists papers/ghost, which has no notebook; remove the line"]


def test_unreadable_table_of_contents(book):
    (book / "_toc.yml").write_text("a: [")
    (line,) = lines(book)
    assert line.startswith("_toc.yml: cannot be read: while parsing")


def test_challenge_anchors_are_unique(book):
    write(book, other_record(challenge="wanda-simple-2024"))
    found = lines(book)
    taken = "'wanda-simple-2024' is already the anchor of papers/scaling.ipynb"
    assert found[0] == f"{WANDA}: paper.challenge: {taken}"
    assert lines(book, write=True) == [found[0]]


def test_stale_tables_are_found_and_written(book):
    write(book, record(title="New title", **{"venue.name": "New venue"}))
    assert lines(book) == [f"README.md: {STALE}", f"challenge/challenge.md: {STALE}"]
    assert lines(book, write=True) == []
    assert "New venue" in (book / "README.md").read_text()
    assert "### Wanda: New title" in (book / "challenge" / "challenge.md").read_text()
    assert lines(book) == []


def test_missing_markers_and_files(book):
    (book / "README.md").write_text("# Book\n")
    (book / "challenge" / "challenge.md").unlink()
    assert lines(book, write=True) == [
        "README.md: needs the markers <!-- papers:begin --> and <!-- papers:end -->, in this order",
        "challenge/challenge.md: cannot be read: No such file or directory",
    ]


def test_notebooks_change_only_to_be_stripped_and_only_when_asked(book):
    before = (book / WANDA).read_bytes()
    assert lines(book, write=True) == []
    assert (book / WANDA).read_bytes() == before
    content = notebook(record())
    content.cells[5].outputs = [new_output("stream", text="hello")]
    content.cells[7].execution_count = 3
    write(book, record(), content)
    assert lines(book) == [f"{WANDA}: cell 5: {STRIP}", f"{WANDA}: cell 7: {STRIP}"]
    assert lines(book, "scaling", write=True) == []  # another paper's notebook is left alone
    assert lines(book, "wanda") != []
    assert lines(book, "wanda", write=True) == []
    cells = nbformat.read(book / WANDA, as_version=4).cells
    assert [cell.source for cell in cells] == [cell.source for cell in content.cells]
    assert cells[3].metadata.tags == ["parameters"]


def test_one_paper_is_checked_alone(book):
    write(book, other_record(year=24))
    write(book, record(**{"venue.name": "New venue"}))
    assert lines(book, "wanda") == []
    assert lines(book, "scaling") == [
        "papers/scaling.ipynb: paper.year: 24 must be greater than or equal to 1980",
    ]
    waits = (
        "README.md: waits until every record is sound and filled in; `prunebook check` lists what "
        "is missing"
    )
    assert lines(book, "wanda", write=True) == [waits]
    assert "New venue" not in (book / "README.md").read_text()
    write(book, other_record())
    assert lines(book, "wanda", write=True) == []
    assert "New venue" in (book / "README.md").read_text()


def test_one_paper_of_the_contents(book):
    (book / "_toc.yml").write_text("format: jb-book\nparts:\n- chapters:\n  - file: papers/ghost\n")
    assert lines(book, "wanda") == [
        "_toc.yml: does not list papers/wanda; add the line `- file: papers/wanda`"
    ]
    assert lines(book, "scaling") == [
        "_toc.yml: does not list papers/scaling; add the line `- file: papers/scaling`"
    ]


def test_an_unknown_paper_is_refused(book):
    with pytest.raises(UserError, match=r"^unknown paper 'ghost'; allowed: scaling, wanda$"):
        check(book, ["wanda", "ghost"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arxiv": "2306.11695"},
            "paper.arxiv: '2306.11695' is already the arXiv id of papers/scaling.ipynb",
        ),
        (
            {"openreview": "PxoFut3dWW"},
            "paper.openreview: 'PxoFut3dWW' is already the OpenReview id of ",
        ),
        (
            {"challenge": "wanda-simple-2024"},
            "paper.challenge: 'wanda-simple-2024' is already the anchor of ",
        ),
    ],
)
def test_ids_belong_to_one_paper(book, changes, message):
    write(book, other_record(**changes))
    (found,) = lines(book, "wanda")
    assert found.startswith(f"{WANDA}: {message}")
    assert lines(book, "scaling") == []  # the paper that had it first is sound


def test_a_draft_with_a_valid_record_keeps_the_tables_waiting(book):
    write(book, record(takeaway="FILL-IN"))
    line = f"{WANDA}: paper.takeaway: replace FILL-IN with what belongs here"
    assert lines(book, write=True) == [line]
    assert "FILL-IN" not in (book / "README.md").read_text()


def test_source_and_test_of_a_method(book):
    source = book / "lib/prunebook/methods/wanda.py"
    test = book / "tests/methods/test_wanda.py"
    source.write_text('"""FILL-IN: an idea."""\n\n\nclass Wander:\n    pass\n')
    test.write_text('expected = "FILL-IN: a matrix"\n')
    assert lines(book, "wanda") == [
        "lib/prunebook/methods/wanda.py: defines no class Wanda, which REGISTRY names for 'wanda'",
        "lib/prunebook/methods/wanda.py: line 1: replace FILL-IN with an idea",
        "tests/methods/test_wanda.py: line 1: replace FILL-IN with a matrix",
    ]
    assert lines(book, "scaling") == []
    source.unlink()
    test.write_text("def")
    missing, broken = lines(book, "wanda")
    assert missing == (
        "lib/prunebook/methods/wanda.py: is missing: method 'wanda' needs its source and its test"
    )
    assert broken.startswith("tests/methods/test_wanda.py: cannot be read: ")


def test_a_module_implements_a_paper(book):
    module = "prunebook.methods.formats.tiles"
    write(book, record(method=None, implementation=module))
    words = f"is missing: implementation {module} needs its source and its test"
    assert lines(book, "wanda") == [
        f"lib/prunebook/methods/formats/tiles.py: {words}",
        f"tests/methods/formats/test_tiles.py: {words}",
    ]
    for file in ("lib/prunebook/methods/formats/tiles.py", "tests/methods/formats/test_tiles.py"):
        (book / file).parent.mkdir(parents=True)
        (book / file).write_text("")
    assert lines(book, "wanda") == []


def test_a_cache_implements_a_paper(book):
    write(book, record(method="h2o"))
    allowed = "allowed: magnitude, wanda, null"
    assert f"{WANDA}: paper.method: 'h2o' is no method; {allowed}" in lines(book, "wanda")
    (book / "lib/prunebook/caches").mkdir()
    (book / "lib/prunebook/caches/registry.py").write_text(
        'REGISTRY = {"h2o": ("heavy", "H2OCache")}\n'
    )
    assert lines(book, "wanda") == [
        "lib/prunebook/caches/heavy.py: is missing: method 'h2o' needs its source and its test",
        "tests/caches/test_heavy.py: is missing: method 'h2o' needs its source and its test",
    ]
    (book / "tests/caches").mkdir()
    (book / "tests/caches/test_heavy.py").write_text("def test_it():\n    assert True\n")
    (book / "lib/prunebook/caches/heavy.py").write_text("class Cache:\n    pass\n")
    assert lines(book, "wanda") == [
        "lib/prunebook/caches/heavy.py: defines no class H2OCache, which REGISTRY names for 'h2o'"
    ]
    (book / "lib/prunebook/caches/heavy.py").write_text("class H2OCache:\n    pass\n")
    assert lines(book, "wanda") == []

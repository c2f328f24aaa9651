from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell
from tests.tiny_book import cell, notebook, other_record, record, write

from prunebook.catalog import check, method_names
from prunebook.catalog.registry import read_registry
from prunebook.errors import UserError

WANDA = "papers/wanda.ipynb"
STRIP = "has outputs or an execution count; `prunebook check --write` strips them"
STALE = "does not match the notebooks; run `prunebook check --write`"
ORDER = "record, challenge, method, parameters, source, run, figure, claims, see-also"


def lines(book, *names, write=False) -> list[str]:
    found = [str(problem) for problem in check(book, names, write=write)]
    assert not any("\n" in line for line in found)
    return found


def test_a_sound_book_has_no_problems(book):
    assert lines(book) == []


# Cells of the sound notebook: 0 record, 1 title, 2 challenge, 3 method, 4 parameters, 5 source, 6
# run, 7 '## Why', 8 and 9 figure, 10 claims, 11 see-also.
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
        (outputs, [f"cell 6: {STRIP}"]),
        (execution_count, [f"cell 8: {STRIP}"]),
        (two_tags, ["cell 5: more than one of the tags source, run; keep one"]),
        (other_tags_are_free, []),
        (
            untagged_code,
            ["cell 7: a code cell without a tag; allowed: parameters, source, run, figure, claims"],
        ),
        (untagged_raw, ["cell 7: a raw cell without a tag; allowed: record"]),
        (wrong_type, ["cell 10: a cell tagged 'claims' must be code, not markdown"]),
        (wrong_order, [f"cell 6: 'source' comes after 'run'; the order is {ORDER}"]),
        (twice, ["2 cells tagged 'parameters'; one is allowed: join them, or take the tag off"]),
        (text_after_the_end, ["the cell tagged 'see-also' must be the last; move it to the end"]),
        (
            drop(3),
            [
                "no cell tagged 'method'; add a markdown cell with this tag after the one tagged "
                "'challenge'"
            ],
        ),
        (
            drop(4),
            [
                "no cell tagged 'parameters'; add a code cell with this tag after the one tagged "
                "'method'"
            ],
        ),
        (
            drop(10),
            [
                "no cell tagged 'claims'; add a code cell with this tag after the one tagged "
                "'figure'"
            ],
        ),
        (drop(11), ["no cell tagged 'see-also'; add a markdown cell with this tag at the end"]),
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
        f"{WANDA}: no cell tagged 'challenge'; add a markdown cell with this tag after the one "
        f"tagged 'record'",
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
    assert found[2:] == [
        "_toc.yml: does not list papers/scaling; add the line `- file: papers/scaling`",
        "_toc.yml: does not list papers/wanda; add the line `- file: papers/wanda`",
    ]


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
    assert (
        found[0] == f"{WANDA}: paper.challenge: "
        f"'wanda-simple-2024' "
        f"is already "
        f"the anchor "
        f"of papers/scaling.ipynb"
    )
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
    outputs(content.cells)
    execution_count(content.cells)
    write(book, record(), content)
    assert lines(book) == [f"{WANDA}: cell 6: {STRIP}", f"{WANDA}: cell 8: {STRIP}"]
    assert lines(book, "scaling", write=True) == []  # another paper's notebook is left alone
    assert lines(book, "wanda") != []
    assert lines(book, "wanda", write=True) == []
    cells = nbformat.read(book / WANDA, as_version=4).cells
    assert [cell.source for cell in cells] == [cell.source for cell in content.cells]
    assert cells[4].metadata.tags == ["parameters"]


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


def in_record(field):
    """The same field, of the record's first link, code or source."""
    return {
        "code.url": lambda url: {"code": {"url": url, "license": None, "official": True}},
        "links[0].url": lambda url: {"links": [{"label": "L", "url": url}]},
        "runs_in[0].source": lambda url: {
            "runs_in": [
                {"runtime": "r", "status": "removed", "date": record()["added"], "source": url}
            ]
        },
        "corrections[0].source": lambda url: {
            "corrections": [{"field": "title", "listed": "T", "reason": "R", "source": url}]
        },
    }[field]


GITHUB = (
    "must have the form https://github.com/owner/name, or a folder, file, issue or pull request "
    "in it"
)
ARXIV = "must have the form https://arxiv.org/abs/2306.11695"
OPENREVIEW = "must have the form https://openreview.net/forum?id=PxoFut3dWW"


@pytest.mark.parametrize(
    "field", ["code.url", "links[0].url", "runs_in[0].source", "corrections[0].source"]
)
@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://example.org/a", "must begin with https://"),
        ("https://github.com/locuslab", GITHUB),
        ("https://github.com/locuslab/wanda.git", GITHUB),
        ("https://github.com/locuslab/wanda/", GITHUB),
        ("https://www.github.com/locuslab/wanda", GITHUB),
        ("https://github.com/locuslab/wanda/issues/46#issuecomment-1", None),
        ("https://github.com/microsoft/unilm/tree/master/bitnet", None),
        ("https://arxiv.org/pdf/2403.03853", ARXIV),
        ("https://arxiv.org/abs/2403.03853v2", ARXIV),
        ("https://arxiv.org/abs/2403.03853", None),
        ("https://openreview.net/pdf?id=PxoFut3dWX", OPENREVIEW),
        ("https://openreview.net/forum?id=PxoFut3dWX&noteId=abc", None),
        ("https://github.example.org/a", None),
    ],
)
def test_form_of_the_addresses_of_a_record(book, field, url, fault):
    write(book, record(**in_record(field)(url)))
    expected = [f"{WANDA}: paper.{field}: {url} {fault}"] if fault else []
    assert lines(book, "wanda") == expected


@pytest.mark.parametrize(
    ("url", "owner"),
    [
        ("https://github.com/locuslab/wanda", "paper.code.url"),
        ("https://arxiv.org/abs/2306.11695", "the paper's own page, which is linked already"),
    ],
)
def test_no_address_of_a_record_twice(book, url, owner):
    write(book, record(links=[{"label": "Code", "url": url}]))
    assert lines(book, "wanda") == [
        f"{WANDA}: paper.links[0].url: {url} is the address of {owner}; remove one"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](http://example.org)", "http://example.org must begin with https://"),
        ("[a](<https://arxiv.org/pdf/2403.03853>)", f"https://arxiv.org/pdf/2403.03853 {ARXIV}"),
        (
            "[a](javascript:alert)",
            "javascript:alert must be an https address, or a file of the book",
        ),
        (
            "[a](wander.ipynb)",
            "link to wander.ipynb leads nowhere; papers are wanda.ipynb, pages "
            "../concepts/types.md",
        ),
        ("[a](scaling.ipynb) [b](../challenge/challenge.md#x) [c](#here)", None),
        ("`[a](nothing.md)` and $[x](y)$, $$[x](y)$$\n\n```\n[a](nothing.md)\n```", None),
    ],
)
def test_links_of_cells(book, text, fault):
    content = notebook(record())
    content.cells[2].source = text
    write(book, record(), content)
    assert lines(book, "wanda") == ([f"{WANDA}: cell 2 (challenge): {fault}"] if fault else [])


def test_places_to_be_filled_in(book):
    changes = {
        "takeaway": "FILL-IN: a sentence",
        "code": "FILL-IN",
        "tags.type.values": ["FILL-IN: one of A, B"],
    }
    content = notebook(record(**changes))
    content.cells[2].source = "## Challenges\n\n- FILL-IN: **what** fails, with its number\n"
    content.cells[10].source = 'pb.claim(\n    paper="FILL-IN: the numbers",\n)'
    write(book, record(), content)
    readme = (book / "README.md").read_text()
    assert lines(book, write=True) == [
        f"{WANDA}: paper.code: replace FILL-IN with what belongs here",
        f"{WANDA}: paper.tags.type.values[0]: replace FILL-IN with one of A, B",
        f"{WANDA}: paper.takeaway: replace FILL-IN with a sentence",
        f"{WANDA}: cell 2 (challenge), line 3: replace FILL-IN with **what** fails, with its "
        f"number",
        f"{WANDA}: cell 10 (claims), line 2: replace FILL-IN with the numbers",
    ]
    assert (book / "README.md").read_text() == readme


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


def test_this_library_s_caches_are_known_where_a_book_has_no_library(tmp_path):
    found = read_registry(tmp_path)
    assert found["h2o"] == (
        "H2OCache",
        Path("lib/prunebook/caches/h2o.py"),
        Path("tests/caches/test_h2o.py"),
    )
    assert found["wanda"].source == Path("lib/prunebook/methods/wanda.py")
    methods = Path("lib/prunebook/methods")
    assert {*method_names()} == {
        name for name, entry in found.items() if entry.source.is_relative_to(methods)
    }


def test_a_name_in_two_rooms(book):
    (book / "lib/prunebook/caches").mkdir()
    (book / "lib/prunebook/caches/registry.py").write_text(
        'REGISTRY = {"wanda": ("heavy", "H2OCache")}\n'
    )
    with pytest.raises(UserError, match="'wanda' is registered in another room already"):
        check(book)

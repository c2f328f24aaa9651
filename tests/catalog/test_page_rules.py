"""The rules of a page, one fault at a time."""

import pytest
from tests.tiny_book import make_book, notebook, record, write

from prunebook.catalog import check, find_root, parse_record, read_paper
from prunebook.catalog.page_code import code_cells
from prunebook.catalog.page_rules import CODE_RULES, RULES, rule_faults, text_page_faults
from prunebook.catalog.reader import notebook_paths, read_notebook

STATED = [
    {"key": "better", "origin": "paper", "statement": "a", "number": "1", "source": "Table 1"},
    {"key": "speed-of-2-4", "origin": "ours", "statement": "b", "number": "2", "source": "none"},
    {
        "key": "large",
        "origin": "paper",
        "statement": "c",
        "number": "3",
        "source": "Table 2",
        "not_testable": "too large",
    },
]
ERRATUM = {"paper": "a", "code": "b", "effect": "none known", "source": "Table 1"}
CHECKS = 'pb.check("better", ours="1", verdict=True)\npb.check("speed-of-2-4", verdict=x)\n'


def faults(rule: str, code: str, **fields) -> list[str]:
    """What one rule says of a page with this code in its claims cell, which is cell 9."""
    paper = record(**fields)
    content = notebook(paper)
    content.cells[9].source = code
    if rule in CODE_RULES:
        return list(CODE_RULES[rule](code_cells(content)))
    return list(RULES[rule](content, parse_record(paper, "x")))


def text_page(*code: str, options: str = "") -> str:
    """A concept page with these code cells; the code of the first begins in line 9."""
    cells = [f"```{{code-cell}}\n{options}{source}\n```\n" for source in code]
    front = "---\nkernelspec: {name: python3}\n---\n\n# Types\n\n"
    return front + "The text follows.\n" + "\n".join(cells)


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        (CHECKS + "pb.check_rest()", []),
        (CHECKS + 'pb.check("large")', []),
        ("from prunebook import check\ncheck('better')\npb.check_rest()", ["speed-of-2-4"]),
        (CHECKS, ["large"]),
        ("for key in ('better', 'large'):\n    pb.check(key)", ["speed-of-2-4"]),
        (
            "for n in (2, 4):\n    pb.check(f'speed-of-{n}-4')\npb.check('better')",
            ["large"],
        ),
        ("%time\npb.check('better')", ["better", "speed-of-2-4", "large"]),
    ],
)
def test_claims_are_checked(code, missing):
    found = faults("claims-checked", code, claims=STATED)
    assert [line.split("'")[1] for line in found] == missing


def test_messages_of_unchecked_claims():
    assert faults("claims-checked", "", claims=STATED[1:]) == [
        "claim 'speed-of-2-4' is not checked; add `pb.check(\"speed-of-2-4\", ours=..., "
        "verdict=...)`, or say `not_testable` in the record",
        "claim 'large' is not shown; add `pb.check_rest()` after the other checks",
    ]
    assert faults("claims-checked", "", claims=[]) == []


def test_a_paper_that_does_not_run_checks_nothing():
    paper = record(method=None, claims=STATED)
    assert list(rule_faults(notebook(paper), parse_record(paper, "x"))) == []


def test_checked_keys_are_claims():
    code = CHECKS + "pb.check('beter')\npb.check(f'slow-{n}')\npb.check(key)"
    assert faults("claims-known", code, claims=STATED) == [
        "cell 9: checks 'beter', which is no claim of the record; add it there",
        r"cell 9: checks keys like 'slow\\-.+'; the record has none",
    ]


def test_errata_are_shown():
    show = "pb.show_errata()"
    assert faults("errata-shown", show, errata=[ERRATUM]) == []
    assert faults("errata-shown", "") == []
    (line,) = faults("errata-shown", "", errata=[ERRATUM])
    assert line.startswith("the record's errata are not shown")
    (line,) = faults("errata-shown", show)
    assert line.startswith("shows errata, and the record has none")


def test_public_source_is_shown():
    code = "pb.show_source(wanda.score)\npb.show_source(wanda._norm)\nshow_source(_Hidden.prune)"
    message = "has a private name; show a public one"
    assert faults("public-source", code) == [
        f"cell 9: wanda._norm {message}",
        f"cell 9: _Hidden.prune {message}",
    ]


def test_a_page_is_short():
    short = "\n\n".join(["x = 1"] * 124)  # five other cells have one line each
    assert faults("short-page", short) == []
    assert faults("short-page", short + "\ny = 1\nz = 1") == [
        "131 lines of code; at most 130: shorten them, or fold a study with the tag 'hide-cell'"
    ]


def test_folded_cells_do_not_count():
    paper = record()
    content = notebook(paper)
    content.cells[9].source = "x = 1\n" * 200
    content.cells[9].metadata.tags.append("hide-cell")
    assert list(CODE_RULES["short-page"](code_cells(content))) == []


def test_colours_are_of_the_palette():
    code = "axis.plot(x, color=palette.BLUE)\naxis.plot(x, color='black')"
    (line,) = faults("palette", code)
    assert line.startswith("cell 9, line 2: the colour 'black' ")


def test_lines_are_short():
    code = "x = 1\n" + "y" * 101 + "\n" + "z" * 100
    start = "y" * 30
    assert faults("short-lines", code) == [
        f"cell 9, line 2: 101 characters, at most 100: {start}..."
    ]


def test_a_sentence_stands_once():
    sentence = "The norms of the inputs are gathered in one pass."
    paper = record()
    content = notebook(paper)
    content.cells[2].source = f"{sentence} Short one. Short one.\n\n{sentence[:-1]}!"
    assert list(RULES["sentences"](content, parse_record(paper, "x"))) == []
    content.cells[10].source = f"More.\n{sentence}"
    assert list(RULES["sentences"](content, parse_record(paper, "x"))) == [
        "cell 10: stands twice on the page: The norms of the inputs are ga..."
    ]


def test_check_holds_the_rules(tmp_path):
    book = make_book(tmp_path / "book")
    write(book, record(claims=STATED))
    faults = [str(problem) for problem in check(book, ["wanda"])]
    assert len(faults) == len(STATED)
    assert faults[0].startswith("papers/wanda.ipynb: claim 'better' is not checked; ")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("x = 1\n" + "y" * 101, "line 10: 101 characters, at most 100: " + "y" * 30 + "..."),
        (
            "pb.show_source(wanda._norm)",
            "line 9: wanda._norm has a private name; show a public one",
        ),
        (
            "x = 1\naxis.plot(x, color='black')",
            "line 10: the colour 'black' is typed; take it from prunebook.notebook.palette",
        ),
        (
            "x = 1\n" * 131,
            "131 lines of code; at most 130: shorten them, or fold a study with the tag "
            "'hide-cell'",
        ),
    ],
)
def test_concept_pages_keep_the_rules_of_code(code, fault):
    assert list(text_page_faults(text_page(code))) == [fault]


def test_concept_pages_may_have_what_is_no_code():
    code = "x = 1\ny = " + "1 + " * 20 + "1"
    prose = "\n" + "long " * 40 + "\n\n```python\n" + "y" * 101 + "\n```\n"
    assert list(text_page_faults(text_page(code, "z = 2") + prose)) == []


def test_options_of_a_cell_are_no_code():
    options = ":tags: [hide-input]\n:mystnb: {image: {alt: " + "a" * 101 + "}}\n"
    assert list(text_page_faults(text_page("x = 1\n" * 131, options=options))) == []
    (line,) = text_page_faults(text_page("y" * 101, options=options))
    assert line.startswith("line 11: ")


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("## Challenges\n\n- **One.** It is\n  long.\n", None),
        ("- a\n* b\n- c\n- d\n- e\n- f", None),
        ("## Challenges\n\nNone known.", 0),
        ("-no item", 0),
        ("- a\n" * 7, 7),
    ],
)
def test_challenges_are_a_list_of_one_to_six_items(source, count):
    paper = record()
    content = notebook(paper)
    content.cells[10].source = source
    expected = []
    if count is not None:
        expected = [
            f"cell 10: {count} challenges; write a list of 1 to 6 items, each in the form "
            "`- **In a few words.** What goes wrong`"
        ]
    assert list(RULES["challenges"](content, parse_record(paper, "x"))) == expected


def test_check_names_the_concept_page(tmp_path):
    book = make_book(tmp_path / "book")
    page = book / "concepts" / "details" / "LoRA.md"
    page.parent.mkdir(parents=True)
    page.write_text(text_page("y" * 101))
    (problem,) = check(book)
    assert str(problem).startswith("concepts/details/LoRA.md: line 9: 101 characters")
    assert check(book, ["wanda"]) == []


def test_check_names_a_concept_page_that_cannot_be_read(tmp_path):
    book = make_book(tmp_path / "book")
    (book / "concepts").mkdir()
    (book / "concepts" / "types.md").write_bytes(b"\xff")
    (problem,) = check(book)
    assert str(problem).startswith("concepts/types.md: cannot be read: ")


def test_every_paper_of_this_book_keeps_the_rules():
    for path in notebook_paths(find_root()):
        assert list(rule_faults(read_notebook(path), read_paper(path).record)) == [], path.name


def test_every_concept_page_of_this_book_keeps_the_rules():
    for path in sorted((find_root() / "concepts").glob("**/*.md")):
        assert list(text_page_faults(path.read_text(encoding="utf-8"))) == [], path.name

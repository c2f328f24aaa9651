"""Places that are still to be filled in: of a record, of cells, of a file."""

from tests.catalog.checking import WANDA, lines
from tests.tiny_book import notebook, record, write

from prunebook.catalog.placeholders import field_faults, line_faults


def test_places_to_be_filled_in(book):
    changes = {
        "takeaway": "FILL-IN: a sentence",
        "code": "FILL-IN",
        "tags.type.values": ["FILL-IN: one of A, B"],
    }
    content = notebook(record(**changes))
    content.cells[10].source = "## Challenges\n\n- FILL-IN: **what** fails, with its number\n"
    content.cells[9].source = 'pb.claim(\n    paper="FILL-IN: the numbers",\n)'
    write(book, record(), content)
    readme = (book / "README.md").read_text()
    assert lines(book, write=True) == [
        f"{WANDA}: paper.code: replace FILL-IN with what belongs here",
        f"{WANDA}: paper.tags.type.values[0]: replace FILL-IN with one of A, B",
        f"{WANDA}: paper.takeaway: replace FILL-IN with a sentence",
        f"{WANDA}: cell 9 (claims), line 2: replace FILL-IN with the numbers",
        f"{WANDA}: cell 10 (challenge), line 3: replace FILL-IN with **what** fails, with its "
        f"number",
    ]
    assert (book / "README.md").read_text() == readme


def test_fields_are_named_by_their_path():
    data = {"a": [{"b": "FILL-IN: one"}, {"b": 2}], "c": "x FILL-IN", "d": None}
    assert list(field_faults(data)) == [
        ("paper.a[0].b", "paper.a[0].b: replace FILL-IN with one"),
        ("paper.c", "paper.c: replace FILL-IN with what belongs here"),
    ]


def test_lines_are_counted_from_one_and_long_requests_are_cut():
    text = f'x = 1\n# FILL-IN:  the   rule\nraise Error("FILL-IN: {"y" * 170}")\n'
    assert list(line_faults(text, "here, ")) == [
        "here, line 2: replace FILL-IN with the rule",
        f"here, line 3: replace FILL-IN with {'y' * 160}...",
    ]

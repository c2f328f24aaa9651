"""The form of a paper's links, in its record and in its cells."""

import pytest
from tests.catalog.checking import WANDA, lines
from tests.tiny_book import notebook, record, write


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
    content.cells[10].source = f"- **In a few words.** {text}"
    write(book, record(), content)
    assert lines(book, "wanda") == ([f"{WANDA}: cell 10 (challenge): {fault}"] if fault else [])

"""The text of pages on its way into the site: contents, lists of papers, links."""

import pytest
import yaml
from tests.small_book import record

from prunebook.catalog import read_papers
from prunebook.errors import UserError
from prunebook.site.pages.text import adapt_links, fill_papers, name_papers

TAGGED = """\
Before
<!-- papers: criteria-wanda -->
after `<!-- papers: no-such-tag -->`

```md
<!-- papers: no-such-tag -->
```
"""


def test_papers_stand_in_the_contents_under_their_short_names(book):
    book.add("alpha", short="Al: pha")
    contents = (
        "root: index\nparts:\n- caption: Papers\n  chapters:\n"
        "  - file: papers/alpha\n  - file: papers/other\n"
    )
    assert yaml.safe_load(name_papers(contents, read_papers(book.root))) == {
        "root": "index",
        "parts": [
            {
                "caption": "Papers",
                "chapters": [
                    {"file": "papers/alpha", "title": "Al: pha"},
                    {"file": "papers/other"},
                ],
            }
        ],
    }


def test_lists_of_papers(book):
    book.add("alpha", "1", year=2023, short="A*pha")
    book.add("beta", method=None, venue={"name": "Preprint", "year": 2025, "kind": "preprint"})
    other = {"values": ["Magnitude"]}
    book.add("gamma", "1", tags={**record("gamma")["tags"], "criteria": other})
    papers = read_papers(book.root)
    expected = TAGGED.replace(
        "<!-- papers: criteria-wanda -->\na",
        "\n- [Beta](../papers/beta.ipynb), Preprint 2025 *(not run yet)*\n"
        "- [A\\*pha](../papers/alpha.ipynb), ICLR 2024\n\na",
    )
    assert fill_papers(TAGGED, "concepts/why.md", papers) == expected
    deep = fill_papers("  <!--papers:criteria-magnitude-->", "concepts/details/why.md", papers)
    assert deep == "\n- [Gamma](../../papers/gamma.ipynb), ICLR 2024\n\n"
    assert fill_papers(TAGGED, "concepts/why.md", []) == TAGGED.replace(
        "<!-- papers: criteria-wanda -->\n", "\nNo paper of the book carries this tag yet.\n\n"
    )
    message = (
        r"^concepts/why\.md: <!-- papers: type-none --> names no tag; allowed: type-unstructured, "
    )
    with pytest.raises(UserError, match=message):
        fill_papers("<!-- papers: type-none -->\n", "concepts/why.md", papers)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](why.md)", "[a](why.ipynb)"),
        (
            "[a](why.md#x) [b](./why.md) [c](<why.md>)",
            "[a](why.ipynb#x) [b](./why.ipynb) [c](<why.ipynb>)",
        ),
        ("[a](../concepts/why.md 'title')", "[a](../concepts/why.ipynb 'title')"),
        ("[a](/concepts/why.md) [b](/why.md)", "[a](/concepts/why.ipynb) [b](/why.md)"),
        ("[a](details/w%68y.md)", "[a](details/w%68y.ipynb)"),
        ("[`code`](why.md)", "[`code`](why.ipynb)"),
        ("[a](types.md#why.md) [b](why.mdx) [c](#why.md)", None),
        ("[a](https://example.org/concepts/why.md)", None),
        ("`[a](why.md)` and ``[a](why.md) ` [b](why.md)``", None),
        ("why.md (why.md)", None),
        ("```\n[a](why.md)\n```\n", None),
        ("~~~python\n[a](why.md)\n```\n[a](why.md)\n~~~\n", None),
        ("```{code-cell}\n[a](why.md)\n```\n", None),
        (
            "```{note}\n[a](why.md)\n```\n[b](why.md)",
            "```{note}\n[a](why.ipynb)\n```\n[b](why.ipynb)",
        ),
        (
            "````{note}\n```python\n[a](why.md)\n```\n[b](why.md)\n````\n",
            "````{note}\n```python\n[a](why.md)\n```\n[b](why.ipynb)\n````\n",
        ),
        (":::{note}\n[a](why.md)\n:::\n", ":::{note}\n[a](why.ipynb)\n:::\n"),
        ("```x``` [a](why.md)\n[b](why.md)", "```x``` [a](why.ipynb)\n[b](why.ipynb)"),
    ],
)
def test_links_follow_pages_that_are_notebooks(text, expected):
    known = {"concepts/why", "concepts/details/why"}
    assert adapt_links(text, "concepts/types.md", known) == (text if expected is None else expected)
    assert adapt_links(text, "concepts/types.md", []) == text

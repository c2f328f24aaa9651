"""Pages of concepts/ with code cells: reading, running, their way into the site."""

import json
from dataclasses import replace

import nbformat
import pytest
from tests.small_book import record, write_sources

from prunebook.catalog import read_papers
from prunebook.errors import UserError
from prunebook.runs.executed import Execution, current_key, parameters_for, read_execution
from prunebook.runs.notebooks import Runnable, assigned_parameters, place, read_pages
from prunebook.runs.run import run_notebooks
from prunebook.site.assemble import assemble, text_page
from prunebook.site.pages.text import adapt_links, fill_papers
from prunebook.site.published import read_published, read_published_pages

PAGE = """\
---
kernelspec:
  name: python3
  display_name: Python 3
html_theme.sidebar_secondary.remove: true
---
# Why numbers *differ*

Text, [types](types.md).

```{code-cell}
:tags: [parameters]
samples = 1
windows: int = 2
```

:::{note}
```python
no = "cell"
```
:::

<!-- papers: criteria-wanda -->

```{code-cell}
:tags: [hide-input]
print(samples, windows)
```

The end, see [LoRA](details/LoRA.md#lora).
"""


@pytest.fixture
def page(book):
    """`page(text)` writes `concepts/why.md` into a book with a page beside it that is none to
    execute."""
    write_sources(book.root)

    def write(text=PAGE, name="why"):
        path = book.root / "concepts" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return Runnable(f"concepts/{name}", path)

    return write


def test_reading(page, book):
    runnable = page()
    assert read_pages(book.root) == [runnable]
    notebook = runnable.read()
    assert [cell.cell_type for cell in notebook.cells] == [
        "markdown",
        "code",
        "markdown",
        "code",
        "markdown",
    ]
    assert [cell.metadata.get("tags") for cell in notebook.cells] == [
        None,
        ["parameters"],
        None,
        ["hide-input"],
        None,
    ]
    assert notebook.cells[1].source == "samples = 1\nwindows: int = 2"
    assert 'no = "cell"' in notebook.cells[2].source
    assert [place(notebook, index) for index in (1, 3)] == ["line 11", "line 25"]
    assert PAGE.splitlines()[24] == "```{code-cell}"
    assert assigned_parameters(notebook) == {"samples", "windows"}
    assert notebook == runnable.read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nkernelspec: [\n---\n# A\n", r"concepts/why\.md: cannot be read: while parsing"),
        ("---\njust text\n---\n# A\n", r"concepts/why\.md: the front matter must be a mapping"),
        (
            "---\nkernelspec: {name: 3, display_name: P}\n---\n# A\n",
            r"why\.md: not a readable text notebook: 3 is not of type 'string'$",
        ),
        (
            PAGE.replace(":tags: [hide-input]", ":tags: hide-input"),
            r"why\.md: not a readable text notebook: 'hide-input' is not",
        ),
        (
            PAGE.replace(":tags: [hide-input]", ":tags: [hide"),
            r"why\.md: not a readable text notebook: Code cell 3",
        ),
        (
            PAGE.replace(":tags: [hide-input]", ":load: none.py"),
            r"why\.md: not a readable text notebook: Can't read",
        ),
    ],
)
def test_unreadable_pages(page, book, text, message):
    page(text)
    with pytest.raises(UserError, match=message):
        run_notebooks(book.root)


def test_the_kernelspec_marks_a_page_to_run(page, book):
    page(PAGE.replace("kernelspec:", "other:"))
    page("# No front matter\n\n---\nkernelspec: 1\n---\n", "more/deeper")
    assert read_pages(book.root) == []


def profiles(book, **quick):
    path = book.root / "papers" / "profiles.yml"
    path.write_text(json.dumps({"quick": {"default": {"model_name": "m", "samples": 2}, **quick}}))


def test_run_skip_and_failure(page, book):
    """One scenario, because each start of a kernel takes a second."""
    broken = PAGE.replace("print(samples, windows)", "# it fails\nraise KeyError('no')")
    profiles(book, **{"concepts/why": {"windows": 7}})
    book.add("alpha", "1")
    page()
    page(broken, "details/broken")
    summary = run_notebooks(book.root, ["concepts/why", "concepts/details/broken"])
    assert [(outcome.name, outcome.status) for outcome in summary.outcomes] == [
        ("concepts/details/broken", "failed"),
        ("concepts/why", "ran"),
    ]
    text = str(summary)
    assert "line 25: # it fails\n" in text
    assert "KeyError: 'no'" in text
    assert "rerun: prunebook run concepts/details/broken --profile quick" in text
    folder = book.root / "_build" / "executed" / "quick" / "concepts"
    assert f"kept: {folder}/details/broken.failed.ipynb, broken.log" in text
    assert sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    ) == [
        "broken.failed.ipynb",
        "broken.log",
        "why.ipynb",
        "why.key",
        "why.log",
    ]
    executed = nbformat.read(folder / "why.ipynb", 4)
    assert executed.cells[4].outputs[0].text == "2 7\n"
    assert read_execution(book.root, "quick", "concepts/why").parameters == {
        "samples": 2,
        "windows": 7,
    }

    page(PAGE.replace("html_theme.sidebar_secondary.remove: true", "other: 1"))
    (again,) = run_notebooks(book.root, ["concepts/why"]).outcomes
    assert again.status == "up to date"


def test_a_page_has_no_parameter_that_it_does_not_assign(page, book):
    runnable = page()
    profiles(book, **{"concepts/why": {"windws": 7}})
    message = (
        r"quick\.concepts/why\.windws is no parameter of the notebook; allowed: samples, windows$"
    )
    with pytest.raises(UserError, match=message):
        current_key(book.root, "quick", runnable)
    profiles(book)
    page(PAGE.replace(":tags: [parameters]\n", ""))
    assert parameters_for(book.root, "quick", runnable, runnable.read()) == {}


def test_a_parameters_cell_that_is_no_python_assigns_nothing():
    cell = nbformat.v4.new_code_cell("a = = 1", metadata={"tags": ["parameters"]})
    assert assigned_parameters(nbformat.v4.new_notebook(cells=[cell])) == set()


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("Text,", "Other text,", True),
        ("print(samples", "print(1 + samples", True),
        ("criteria-wanda", "criteria-other", True),
        ("display_name: Python 3", "display_name: Snake", False),
        ("```{code-cell}\n:tags: [hide-input]", "```{raw-cell}\nraw\n```\n\n```{code-cell}", False),
    ],
)
def test_what_counts_for_the_key_of_a_page(page, book, old, new, changes):
    before = current_key(book.root, "quick", page())
    assert (current_key(book.root, "quick", page(PAGE.replace(old, new))) != before) is changes


TAGGED = """\
Before
<!-- papers: criteria-wanda -->
after `<!-- papers: no-such-tag -->`

```md
<!-- papers: no-such-tag -->
```
"""


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


EXECUTION = Execution(None, "key", "book", 12.3, "2026-11-23", {})


def test_a_page_in_the_site(page, book):
    """Not run, run, and run before its last change."""
    book.add("alpha", "1")
    page()
    (published,) = read_published_pages(book.root)
    assert (published.name, published.execution, published.images, published.tables) == (
        "concepts/why",
        None,
        0,
        0,
    )
    papers = read_papers(book.root)
    notebook = text_page(published, papers)
    assert notebook.cells[0].source.startswith(
        "# Why numbers *differ*\n\n:::{note}\nThe code of this page has not"
    )
    assert notebook.cells[0].source.endswith("\n:::\n\nText, [types](types.md).")
    assert "[Alpha](../papers/alpha.ipynb)" in notebook.cells[2].source
    assert dict(notebook.metadata) == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "html_theme.sidebar_secondary.remove": True,
    }
    nbformat.validate(notebook)

    v4 = nbformat.v4
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}
    outputs = [
        v4.new_output("stream", name="stderr", text="noise"),
        v4.new_output("display_data", widget),
        v4.new_output("display_data", {"image/png": "aGk="}),
        v4.new_output("display_data", {"text/html": "<table></table>"}),
    ]
    published.notebook.cells[3].outputs = outputs
    ran = replace(published, execution=EXECUTION, current=True)
    notebook = text_page(ran, papers)
    assert notebook.cells[0].source == "# Why numbers *differ*\n\nText, [types](types.md)."
    line = (
        '<p class="pb-changed">Executed on <time>2026-11-23</time> with profile book in 12 s.</p>'
    )
    assert notebook.cells[-1].source == line
    assert notebook.cells[3].outputs == outputs[2:]
    assert (ran.images, ran.tables) == (1, 1)
    old = text_page(replace(ran, current=False), papers).cells
    assert ":::{note}\nThe outputs are from before the last change" in old[0].source
    assert old[-1].source == line


def test_assembled_links_and_files(page, book):
    book.add("alpha", "1")
    page()
    page("# LoRA\n\nBack to [why](../why.md) and [types](../types.md).\n", "details/LoRA")
    (book.root / "index.md").write_text("# Tiny\n\n[Why](concepts/why.md)\n\n<!-- papers -->\n")
    path = book.root / "papers" / "alpha.ipynb"
    source = nbformat.read(path, 4)
    source.cells[-1].source = "See [why](../concepts/why.md#x)."
    nbformat.write(source, path)
    site = assemble(book.root, read_published(book.root), read_published_pages(book.root))
    assert not (site / "concepts" / "why.md").exists()
    assert (book.root / "concepts" / "why.md").read_text() == PAGE
    assert (
        "Text, [types](types.md)."
        in nbformat.read(site / "concepts" / "why.ipynb", 4).cells[0].source
    )
    assert (
        (site / "concepts/details/LoRA.md")
        .read_text()
        .startswith("# LoRA\n\nBack to [why](../why.ipynb) and [types](../types.md).\n")
    )
    assert "[Why](concepts/why.ipynb)" in (site / "index.md").read_text()
    sources = [cell.source for cell in nbformat.read(site / "papers" / "alpha.ipynb", 4).cells]
    assert "See [why](../concepts/why.ipynb#x)." in sources
    assert (site / "_notebooks" / "alpha.ipynb").read_bytes() == path.read_bytes()
    first = (site / "concepts" / "why.ipynb").read_bytes()
    assemble(book.root, read_published(book.root), read_published_pages(book.root))
    assert (site / "concepts" / "why.ipynb").read_bytes() == first


@pytest.mark.parametrize("text", ["No title.\n", "```{code-cell}\n# no title\n```\n", ""])
def test_a_page_without_a_title_is_refused(page, book, text):
    page(f"---\nkernelspec: {{name: python3, display_name: P}}\n---\n{text}")
    (published,) = read_published_pages(book.root)
    with pytest.raises(
        UserError, match=r"^concepts/why\.md: must begin with its title, '# \.\.\.'$"
    ):
        text_page(published, [])

"""Pages of concepts/ with code cells: reading and running."""

import json

import nbformat
import pytest
from tests.small_book import TEXT_PAGE as PAGE
from tests.small_book import write_sources

from prunebook.errors import UserError
from prunebook.runs.executed import current_key, parameters_for, read_execution
from prunebook.runs.notebooks import Runnable, assigned_parameters, place, read_pages
from prunebook.runs.run import run_notebooks


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
    assert [place(notebook, index) for index in (1, 3)] == ["cell at line 11", "cell at line 25"]
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
    assert "cell at line 25: raise KeyError('no')\n" in text
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

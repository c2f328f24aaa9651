"""One small book from its notebooks to checked pages, and tools that cannot build it."""

import importlib.metadata
import re
import shutil
from pathlib import Path

import pytest
import yaml
from tests.small_book import CLAIMS, SHOWN, SmallBook, write_sources

from prunebook.catalog import CONCEPT_PAGES, VOCABULARY, concept_anchor
from prunebook.errors import UserError
from prunebook.runs.run import run_notebooks
from prunebook.site.build import BuildError, build_site


def concept_page(facet: str) -> str:
    """The page of a facet, with the label and heading of each of its values."""
    sections = [
        f"({concept_anchor(facet, value)})=\n## {value}\n\nText.\n\n" for value in VOCABULARY[facet]
    ]
    return f"# {facet.title()} of pruning\n\n{''.join(sections)}"


CONCEPTS = {file: concept_page(facet) for facet, file in CONCEPT_PAGES.items()}
PAGES = [
    "papers/alpha",
    "papers/later",
    "concepts/why",
    "concepts/details/idle",
    "challenge/challenge",
    "scoreboard",
]
TOC = {
    "format": "jb-book",
    "root": "index",
    "chapters": [
        {"file": name} for name in [*PAGES, *(name.removesuffix(".md") for name in CONCEPTS)]
    ],
}
WHY = f"""\
---
kernelspec: {{name: python3, display_name: Python 3}}
---
# Why numbers differ

See [Wanda](criteria.md#wanda).

```{{code-cell}}
:tags: [parameters]
model_name = "m"
```

## A figure

<!-- papers: criteria-wanda -->

```{{code-cell}}
:tags: [hide-input]
{SHOWN}import sys
print("noi" + "se", file=sys.stderr)
```
"""
IDLE = """\
---
kernelspec: {name: python3, display_name: Python 3}
---
# Idle

```{code-cell}
print("as written")
```

Back to [the figure](../why.md#a-figure).
"""


def write_book(book: SmallBook) -> None:
    """Two papers, pages on all facets, a page that has been run and one that has not."""
    root = book.root
    write_sources(root)
    shutil.copyfile(Path(__file__).parents[2] / "_config.yml", root / "_config.yml")
    (root / "_toc.yml").write_text(yaml.safe_dump(TOC))
    for name, text in CONCEPTS.items():
        (root / name).write_text(text)
    (root / "concepts" / "types.md").open("a").write("See [why](why.md#a-figure).\n")
    (root / "concepts" / "why.md").write_text(WHY)
    book.add("alpha", SHOWN, CLAIMS)
    book.add("later", "never", method=None)
    assert not run_notebooks(root, profile="full").failed
    (root / "concepts" / "details").mkdir()
    (root / "concepts" / "details" / "idle.md").write_text(IDLE)


def check_papers(html: Path) -> None:
    """The pages of the papers and the scoreboard show what the notebooks hold."""
    page = (html / "papers" / "alpha.html").read_text()
    assert page.count('class="pb-claim ') == 3
    assert '<table class="pb-results">' in page
    assert '<img alt="../_images/' in page
    assert 'href="../concepts/criteria.html#criteria-wanda"' in page
    assert 'href="../challenge/challenge.html#note-alpha"' in page
    assert "noise" not in page
    assert "paper:" not in page
    assert list((html / "_downloads").rglob("alpha.ipynb"))
    assert "has not been run yet" in (html / "papers" / "later.html").read_text()
    scores = (html / "scoreboard.html").read_text()
    # There is one badge for the verdict overall, one in the legend and one at the claim.
    assert scores.count('<span class="pb-verdict pb-holds">') == 3
    assert scores.count('<span class="pb-verdict pb-not-testable">') == 3
    assert "full-model" in scores


def check_texts(html: Path) -> None:
    """Pages of text show outputs where they have been run, and link to each other."""
    why = (html / "concepts" / "why.html").read_text()
    assert '<img alt="../_images/' in why
    assert '<table class="pb-results">' in why
    assert "with profile full in" in why
    assert re.search(
        r'href="../papers/later.html">.*?Later.*?</a>, ICLR 2024 <em>\(not run yet\)</em>', why
    )
    assert "noise" not in why
    assert 'href="criteria.html#wanda"' in why
    assert 'href="why.html#a-figure"' in (html / "concepts" / "types.html").read_text()
    idle = (html / "concepts" / "details" / "idle.html").read_text()
    assert "has not been run for this build" in idle
    assert "as written" in idle
    assert "cell_output" not in idle
    assert 'href="../why.html#a-figure"' in idle


def test_from_notebooks_to_pages(book, capfd):
    """One scenario, because each build takes seconds."""
    root = book.root
    write_book(book)
    html = build_site(root)
    assert html == root / "_build" / "html"
    check_papers(html)
    check_texts(html)

    # Nothing has changed: nothing is even assembled.
    stamp = (html / "index.html").stat().st_mtime_ns
    site = (root / "_build" / "site" / "index.md").stat().st_mtime_ns
    build_site(root)
    assert (html / "index.html").stat().st_mtime_ns == stamp
    assert (root / "_build" / "site" / "index.md").stat().st_mtime_ns == site
    # A time has changed and no content: the site is assembled, not built.
    (root / "concepts" / "types.md").touch()
    build_site(root)
    assert (html / "index.html").stat().st_mtime_ns == stamp
    assert (root / "_build" / "site" / "index.md").stat().st_mtime_ns > site

    # A link leads nowhere: the site stays as it was.
    criteria = root / "concepts" / "criteria.md"
    criteria.write_text(criteria.read_text().replace("(criteria-wanda)=", ""))
    capfd.readouterr()
    missing = r"jupyter-book failed.* 2 problems: .*alpha\.ipynb.* target not found: criteria-wanda"
    with pytest.raises(BuildError, match=missing):
        build_site(root)
    assert "criteria-wanda" in (root / "_build" / "build.log").read_text()
    assert (html / "index.html").stat().st_mtime_ns == stamp
    assert not list((root / "_build").glob(".sphinx*"))


def test_jupyter_book_2_is_refused(book, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.0.1")
    with pytest.raises(UserError, match=r"jupyter-book 2\.0\.1 is installed.*needs >=1\.0\.4,<2"):
        build_site(book.root)

"""A small book with a record by a stranger who means harm."""

import shutil
from pathlib import Path

import nbformat
from tests.small_book import CLAIMS, SHOWN, SmallBook, write_sources

from prunebook.catalog import CONCEPT_PAGES, VOCABULARY, concept_anchor
from prunebook.runs.run import run_notebooks
from prunebook.site.build import build_site

ROOT = Path(__file__).parents[2]
# What a stranger may write: script, quotes, entities, letters that run from right to left.
HOSTILE = (
    '\u200fשלום <script>hit()</script><img src=x onerror="hit()"> &lt;img src=x '
    "onerror='hit()'&gt; \"'`{{x}} שלום"
)
_HOSTILE_CLAIM = f"""\
import prunebook as pb
text = {HOSTILE!r}
pb.claim("h", text, paper=text, source=text, ours=text, verdict=True, protocol={{"windows": 1}})
"""


def hostile_site(root: Path) -> Path:
    """Build the site of a small book in the folder `root` and return its folder.

    Its papers are `alpha` with claims, `evil` by the stranger, and `later` without implementation.
    """
    book = SmallBook(root)
    write_sources(root)
    shutil.copyfile(ROOT / "_config.yml", root / "_config.yml")
    pages = [
        "papers/alpha",
        "papers/evil",
        "papers/later",
        "challenge/challenge",
        "scoreboard",
        "leaderboard",
    ]
    for facet, page in CONCEPT_PAGES.items():
        sections = [
            f"({concept_anchor(facet, value)})=\n## {value}\n\nText." for value in VOCABULARY[facet]
        ]
        (root / page).write_text("\n\n".join([f"# {facet}", *sections, ""]))
        pages.append(page.removesuffix(".md"))
    toc = "".join(f"- file: {page}\n" for page in pages)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n{toc}")
    book.add("alpha", SHOWN, CLAIMS)
    _tag_claims(root / "papers" / "alpha.ipynb")
    book.add(
        "evil",
        SHOWN,
        _HOSTILE_CLAIM,
        title=HOSTILE,
        short=HOSTILE,
        authors=[HOSTILE],
        takeaway=HOSTILE,
        venue={"name": HOSTILE, "year": 2024, "kind": "workshop"},
        links=[{"label": HOSTILE, "url": "https://example.org/&quot;onmouseover=hit()"}],
    )
    book.add("later", "1", method=None, year=2023)
    assert not run_notebooks(root, profile="full").failed
    return build_site(root)


def _tag_claims(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    (cell,) = [cell for cell in notebook.cells if cell.source == CLAIMS.strip()]
    cell.metadata.tags = ["claims"]
    nbformat.write(notebook, path)

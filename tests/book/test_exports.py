"""Exports of a book with outcomes, the links that open notebooks elsewhere, and the copies that Colab opens."""

import json

import nbformat
import pytest

from prunebook.book.buttons import buttons, colab_notebook
from prunebook.book.executions import Execution
from prunebook.book.exports import export, write_exports
from prunebook.book.published import Published
from prunebook.catalog import Address, read_papers

from .small_book import notebook, write_sources

ADDRESS = Address("https://x.org/book/", "https://github.com/a/b", "trunk")


@pytest.fixture
def sources(book):
    write_sources(book.root)
    book.add("alpha", "1")
    book.add("later", method=None)
    (book.root / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters:\n- file: papers/later\n- file: papers/alpha\n"
    )
    return book.root


def test_export_writes_what_is_known(sources, tmp_path):
    files = export(sources, tmp_path / "out")
    names = ["catalog.json", "catalog.schema.json", "references.bib", "feed.xml", "sitemap.xml", "colab/alpha.ipynb"]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == names
    states = {paper["slug"]: paper["state"] for paper in json.loads(files[0].read_text())["papers"]}
    assert states == {"alpha": "not executed", "later": "not run yet"}
    locations = files[4].read_text().split("<loc>")[1:]
    assert [location.split("<")[0] for location in locations] == [
        "https://tiny.example/book/",
        "https://tiny.example/book/papers/alpha.html",
        "https://tiny.example/book/papers/later.html",
    ]


@pytest.mark.parametrize(("current", "state"), [(True, "executed"), (False, "outdated")])
def test_an_execution_brings_verdicts_and_results(sources, tmp_path, current, state):
    paper = next(paper for paper in read_papers(sources) if paper.slug == "alpha")
    run = Execution(paper.path, "key", "ci", 12.3, "2026-11-23", {"samples": 2})
    claims = [{"verdict": "holds"}, {"verdict": "fails"}, {"verdict": "holds"}]
    results = [{"rows": [{"label": "dense"}], "protocol": {}, "versions": {}, "date": "2026-11-23", "commit": "c"}]
    published = Published(paper, notebook("alpha", "1"), run, current, claims, results)
    catalog, *_ = write_exports(sources, [published], tmp_path / "out")
    (entry,) = json.loads(catalog.read_text())["papers"]
    assert entry["state"] == state
    assert entry["verdicts"] == {"holds": 2, "fails": 1}
    assert entry["run"] == {"profile": "ci", "date": "2026-11-23", "seconds": 12.3, "parameters": {"samples": 2}}
    assert entry["results"] == results


def test_exports_do_not_depend_on_the_day(sources, tmp_path):
    first, second = ({path.name: path.read_bytes() for path in export(sources, tmp_path / name)} for name in "ab")
    assert first == second


def test_buttons_lead_to_the_repository():
    assert buttons("wanda", ADDRESS) == (
        "[Open in Colab](<https://colab.research.google.com/github/a/b/blob/colab/wanda.ipynb>) · "
        "[Open on Binder](<https://mybinder.org/v2/gh/a/b/trunk?urlpath=lab%2Ftree%2Fpapers%2Fwanda.ipynb>)"
    )


def test_the_copy_for_colab_installs_first_and_its_links_lead_to_the_site(sources):
    path = sources / "papers" / "alpha.ipynb"
    content = nbformat.read(path, 4)
    content.cells[
        2
    ].source = "[a](../concepts/types.md#t) [b](later.ipynb) [c](https://y.org/x.md) [d](#here) [e](<../index.md>)"
    nbformat.write(content, path)
    before = path.read_bytes()
    paper = next(paper for paper in read_papers(sources) if paper.slug == "alpha")
    copied = colab_notebook(paper, ADDRESS)
    nbformat.validate(copied)
    assert path.read_bytes() == before
    title, install, challenge, *_ = copied.cells
    assert title.source == "# Alpha"
    assert install.cell_type == "code"
    assert install.source.splitlines()[1:] == [
        '%pip install --quiet "prunebook @ git+https://github.com/a/b@trunk" matplotlib',
        "%pip install --quiet --no-deps -r https://github.com/a/b/raw/trunk/requirements/embedded.txt",
    ]
    assert challenge.source == (
        "[a](https://x.org/book/concepts/types.html#t) [b](https://x.org/book/papers/later.html) "
        "[c](https://y.org/x.md) [d](#here) [e](<https://x.org/book/index.html>)"
    )
    assert not any(cell.cell_type == "raw" for cell in copied.cells)

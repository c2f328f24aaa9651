"""Exports of a book with outcomes, the links that open notebooks elsewhere, and the copies that
Colab opens."""

import json
from importlib.metadata import version

import nbformat
import pytest
from tests.small_book import notebook, write_sources

from prunebook.catalog import Address, read_papers
from prunebook.runs.executed import Execution
from prunebook.runs.records import Run
from prunebook.site.buttons import buttons, colab_notebook
from prunebook.site.exports import export, write_exports
from prunebook.site.published import Published

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
    names = ["catalog.json", "catalog.schema.json", "references.bib", "feed.xml", "sitemap.xml"]
    copies = ["colab/alpha.ipynb", "colab/later.ipynb"]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == names + copies
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
    results = [
        {
            "rows": [{"label": "dense"}],
            "protocol": {},
            "versions": {},
            "date": "2026-11-23",
            "commit": "c",
        }
    ]
    published = Published(paper, notebook("alpha", "1"), run, current, claims, results)
    catalog, *_ = write_exports(sources, [published], tmp_path / "out")
    (entry,) = json.loads(catalog.read_text())["papers"]
    assert entry["state"] == state
    assert entry["verdicts"] == {"holds": 2, "fails": 1}
    assert entry["run"] == {
        "profile": "ci",
        "date": "2026-11-23",
        "seconds": 12.3,
        "parameters": {"samples": 2},
    }
    assert entry["results"] == results
    assert entry["measured_under"] == "ci"


def test_a_quick_run_brings_the_results_of_the_record(sources, tmp_path):
    paper = next(paper for paper in read_papers(sources) if paper.slug == "alpha")
    quick = Execution(paper.path, "key", "quick", 12.3, "2026-11-23", {"samples": 2})
    results = [
        {
            "rows": [{"label": "dense"}],
            "protocol": {},
            "versions": {},
            "date": "2026-11-20",
            "commit": "c",
        }
    ]
    record = Run("alpha", "Alpha", "book", results, [])
    published = Published(
        paper, notebook("alpha", "1"), quick, True, [{"verdict": "holds"}], [], record
    )
    catalog, *_ = write_exports(sources, [published], tmp_path / "out")
    (entry,) = json.loads(catalog.read_text())["papers"]
    assert entry["results"] == results
    assert (entry["run"]["profile"], entry["measured_under"]) == ("quick", "book")


def test_exports_do_not_depend_on_the_day(sources, tmp_path):
    first, second = (
        {path.name: path.read_bytes() for path in export(sources, tmp_path / name)} for name in "ab"
    )
    assert first == second


def test_buttons_lead_to_the_repository():
    assert buttons("wanda", ADDRESS) == (
        "[Open in Colab](<https://colab.research.google.com/github/a/b/blob/colab/wanda.ipynb>) · "
        "[Open on "
        "Binder](<https://mybinder.org/v2/gh/a/b/trunk?urlpath=lab%2Ftree%2Fpapers%2Fwanda.ipynb>)"
    )


def paper_of(root, slug):
    return next(paper for paper in read_papers(root) if paper.slug == slug)


def test_the_copy_for_colab_installs_first_and_its_links_lead_to_the_site(sources):
    path = sources / "papers" / "alpha.ipynb"
    content = nbformat.read(path, 4)
    content.cells[2].source = (
        "[a](../concepts/types.md#t) [b](later.ipynb) [c](https://y.org/x.md) [d](#here) "
        "[e](<../index.md>) [f](/concepts/x.md) [g](//y.org/x.md) $w[i](t.x)$ ![h](../h.png)"
    )
    nbformat.write(content, path)
    before = path.read_bytes()
    copied = colab_notebook(paper_of(sources, "alpha"), ADDRESS)
    nbformat.validate(copied)
    assert path.read_bytes() == before
    title, install, challenge, *_ = copied.cells
    assert title.source == "# Alpha"
    assert install.cell_type == "code"
    assert install.source.splitlines() == [
        "# Record, results and the latest version: https://x.org/book/papers/alpha.html",
        "from importlib.metadata import version",
        "from pathlib import Path",
        "",
        'Path("kept.txt").write_text("".join(f"{name}=={version(name)}\\n" for name in '
        '("numpy", "torch")))',
        '%pip install --quiet -c kept.txt "prunebook @ git+https://github.com/a/b@trunk" '
        "matplotlib",
        "%pip install --quiet --no-deps -r "
        "https://github.com/a/b/raw/trunk/requirements/embedded.txt",
    ]
    assert challenge.source == (
        "[a](https://x.org/book/concepts/types.html#t) [b](https://x.org/book/papers/later.html) "
        "[c](https://y.org/x.md) [d](#here) [e](<https://x.org/book/index.html>) "
        "[f](https://x.org/book/concepts/x.html) [g](//y.org/x.md) $w[i](t.x)$ ![h](../h.png)"
    )
    assert not any(cell.cell_type == "raw" for cell in copied.cells)


def test_the_installation_keeps_what_colab_has(sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install = colab_notebook(paper_of(sources, "alpha"), ADDRESS).cells[1]
    python = [line for line in install.source.splitlines() if not line.startswith("%")]
    exec(compile("\n".join(python), "install", "exec"), {})
    assert (
        tmp_path / "kept.txt"
    ).read_text() == f"numpy=={version('numpy')}\ntorch=={version('torch')}\n"


def test_the_copy_of_a_paper_without_implementation_says_so(sources):
    first, second = (
        colab_notebook(paper_of(sources, slug), ADDRESS).cells[1].source
        for slug in ("alpha", "later")
    )
    assert "no implementation" not in first
    assert second.splitlines()[1] == (
        "# This paper has no implementation here yet: the library is for trying the methods of "
        "the others."
    )
    assert second.splitlines()[2:] == first.splitlines()[1:]

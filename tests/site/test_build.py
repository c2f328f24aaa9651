"""One small book from its notebook to checked pages, and what must not be published."""

import importlib.metadata
import re
import shutil
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from sphinx_external_toc.parsing import parse_toc_yaml
from tests.small_book import CLAIMS, SHOWN, write_sources

from prunebook.catalog import CONCEPT_PAGES, VOCABULARY, concept_anchor
from prunebook.catalog.source_graph import PACKAGE
from prunebook.errors import UserError
from prunebook.files import cache_folder
from prunebook.notebook.claims import CLAIM_MIME
from prunebook.runs.notebooks import assigned_parameters, read_runnables
from prunebook.runs.profiles import load_profiles, parameters_of
from prunebook.runs.records import record_runs
from prunebook.runs.run import run_notebooks
from prunebook.site.build import BuildError, build_site
from prunebook.site.check import Expected, check_site
from prunebook.site.published import read_published
from prunebook.site.serve import make_server

# every facet's page, with the label and heading of each of its values
CONCEPTS = {
    file: f"# {facet.title()} of pruning\n\n"
    + "".join(
        f"({concept_anchor(facet, value)})=\n## {value}\n\nText.\n\n" for value in VOCABULARY[facet]
    )
    for facet, file in CONCEPT_PAGES.items()
}
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


def test_from_notebooks_to_pages(book, capfd):
    """One scenario, because each build takes seconds."""
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

    html = build_site(root)
    assert html == root / "_build" / "html"
    page = (html / "papers" / "alpha.html").read_text()
    assert page.count('class="pb-claim ') == 3
    assert '<table class="pb-results">' in page
    assert '<img alt="../_images/' in page
    assert 'href="../concepts/criteria.html#criteria-wanda"' in page
    assert 'href="../challenge/challenge.html#note-alpha"' in page
    assert "noise" not in page
    assert "paper:" not in page
    assert "has not been run yet" in (html / "papers" / "later.html").read_text()
    scores = (html / "scoreboard.html").read_text()
    # one badge for the verdict overall and one at the claim
    assert scores.count('<span class="pb-verdict pb-holds">') == 2
    assert scores.count('<span class="pb-verdict pb-not-testable">') == 2
    assert list((html / "_downloads").rglob("alpha.ipynb"))
    assert "full-model" in scores

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

    stamp = (html / "index.html").stat().st_mtime_ns
    site = (root / "_build" / "site" / "index.md").stat().st_mtime_ns
    build_site(root)
    assert (html / "index.html").stat().st_mtime_ns == stamp
    assert (root / "_build" / "site" / "index.md").stat().st_mtime_ns == site  # not even assembled
    (root / "concepts" / "types.md").touch()
    build_site(root)
    assert (html / "index.html").stat().st_mtime_ns == stamp  # the same content
    assert (root / "_build" / "site" / "index.md").stat().st_mtime_ns > site

    criteria = root / "concepts" / "criteria.md"
    criteria.write_text(criteria.read_text().replace("(criteria-wanda)=", ""))
    capfd.readouterr()
    missing = r"jupyter-book failed.* 2 problems: .*alpha\.ipynb.* target not found: criteria-wanda"
    with pytest.raises(BuildError, match=missing):
        build_site(root)
    assert "criteria-wanda" in (root / "_build" / "build.log").read_text()
    assert (html / "index.html").stat().st_mtime_ns == stamp
    assert not [
        path.name for path in (root / "_build").iterdir() if path.name.startswith(".sphinx")
    ]


def test_a_quick_run_shows_verdicts_of_the_record_and_judges_nothing(book):
    write_sources(book.root)
    book.add("alpha", SHOWN, CLAIMS)
    run_notebooks(book.root)
    (alpha,) = read_published(book.root)
    assert (alpha.judges, alpha.record) == (False, None)
    assert [claim["verdict"] for claim in alpha.claims] == [
        "not_judged",
        "not_judged",
        "not_testable",
    ]
    assert alpha.judged_results == []
    run_notebooks(book.root, profile="full")
    record_runs(book.root, read_published(book.root), "full")
    shutil.rmtree(book.root / "_build" / "executed" / "full")
    (alpha,) = read_published(book.root)
    assert alpha.execution.profile == "quick"
    assert [claim["verdict"] for claim in alpha.claims] == ["holds", "fails", "not_testable"]
    assert alpha.claims[0]["recorded"].startswith("Recorded on 20")
    boxes = [
        output.data["text/html"]
        for cell in alpha.notebook.cells
        for output in cell.get("outputs", [])
        if CLAIM_MIME in output.get("data", {})
    ]
    assert ["Recorded on" in box for box in boxes] == [True, True, True]
    assert not any("not judged" in box for box in boxes)
    assert alpha.judged_results[0]["protocol"] == {"model": "full-model"}
    shutil.rmtree(book.root / "_build" / "executed")
    (alpha,) = read_published(book.root)
    assert (alpha.execution, len(alpha.claims)) == (None, 3)  # boards need no execution


def test_jupyter_book_2_is_refused(book, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.0.1")
    with pytest.raises(UserError, match=r"jupyter-book 2\.0\.1 is installed.*needs >=1\.0\.4,<2"):
        build_site(book.root)


@pytest.fixture
def site(tmp_path):
    def make(**pages):
        for name, body in pages.items():
            (tmp_path / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
        return tmp_path

    return make


OUTPUT = '<div class="cell_output docutils"><div>{}</div></div>'


def test_a_good_site_has_no_problems(site):
    body = OUTPUT.format(
        '<img src="data:x"><table></table><section class="pb-claim pb-holds"></section>'
    )
    html = site(
        index='<a href="b%20c.html#x">b</a> '
        '<a href="#">top</a> '
        '<a href="https://example.org/z">out</a>'
        '<a href="mailto:x@y">m</a>',
        **{"b c": f'<p id="x"></p><a href="#x">x</a>{body}'},
    )
    assert check_site(html, {"index": Expected(), "b c": Expected(1, 1, 1)}) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="c.html">c</a>', "index: link to c.html leads nowhere"),
        ('<a href="#c">c</a>', "index: link to #c leads nowhere"),
        ('<img src="c.png">', "index: link to c.png leads nowhere"),
        (
            '<script src="https://cdn.example/x.js"></script>',
            "index: loads https://cdn.example/x.js from a network",
        ),
        (
            '<link rel="stylesheet" href="//cdn.example/x.css">',
            "index: loads //cdn.example/x.css from a network",
        ),
    ],
)
def test_bad_links(site, body, problem):
    assert check_site(site(index=body), {"index": Expected()}) == [problem]


@pytest.mark.parametrize(
    "folder",
    [cache_folder(), Path(sys.prefix), PACKAGE.parent, Path.home()],
    ids=["cache", "packages", "library", "home"],
)
def test_a_path_of_the_machine_is_told(site, folder):
    problems = check_site(site(index=f"<pre>in {folder}/models/x</pre>"), {"index": Expected()})
    assert f"index: shows {folder}/, a path of this machine" in problems


def test_missing_pages_and_outputs(site):
    outside = '<img src="data:x"><table></table>'
    html = site(index=outside + OUTPUT.format('<section class="pb-claim"></section>'))
    assert check_site(html, {"index": Expected(2, 1, 1), "papers/alpha": Expected()}) == [
        "index: shows 1 of 2 claims",
        "index: shows 0 of 1 figures",
        "index: shows 0 of 1 tables",
        "papers/alpha: the page is missing",
    ]


def test_serve(tmp_path):
    with pytest.raises(UserError, match="run `prunebook build` first"):
        make_server(tmp_path, 0)
    html = tmp_path / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("hello")
    with make_server(tmp_path, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match=f"port {server.server_port} cannot be used"):
            make_server(tmp_path, server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
            assert answer.read() == b"hello"
        server.shutdown()
    with pytest.raises(UserError, match="port 70000 cannot be used"):
        make_server(tmp_path, 70000)


def test_the_books_own_profiles_and_contents():
    """Every notebook is in the table of contents; each that runs has the parameters that the
    profiles give it."""
    root = Path(__file__).parents[2]
    profiles = load_profiles(root)
    assert list(profiles) == ["quick", "book", "full", "gpu"]
    declared = [str(name) for name in parse_toc_yaml(root / "_toc.yml")]
    for runnable in read_runnables(root):
        assert f"{'' if runnable.is_text else 'papers/'}{runnable.name}" in declared
        if runnable.is_text or not runnable.implemented:
            continue
        for profile in profiles:
            # or it raises
            parameters_of(root, profile, runnable.name, assigned_parameters(runnable.read()))

"""What is wrong with built pages: links, outputs, addresses, paths."""

import sys
from pathlib import Path

import pytest

from prunebook.catalog.source_graph import PACKAGE
from prunebook.files import cache_folder
from prunebook.site.check import Expected, check_site

OUTPUT = '<div class="cell_output docutils"><div>{}</div></div>'


@pytest.fixture
def site(tmp_path):
    """`site(**pages)` writes pages, name -> body, and returns their folder."""

    def make(**pages):
        for name, body in pages.items():
            (tmp_path / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
        return tmp_path

    return make


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

"""A record, and a claim, by a stranger who means harm: shown as text, never run."""

import pytest

from prunebook.catalog import RecordError, parse_record

from tests.small_book import record  # isort: skip
from tests.browser.hostile import HOSTILE

PAGES = (
    "index",
    "papers/evil",
    "scoreboard",
    "leaderboard",
    "challenge/challenge",
    "concepts/types",
)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_of_it_runs(hostile_html, open_page, name):
    page = open_page(hostile_html / f"{name}.html")
    page.wait_for_load_state("load")
    assert page.locator("img[onerror], [onmouseover], [onclick*=hit]").count() == 0
    assert "hit()" not in " ".join(page.locator("script").all_text_contents())
    assert page.locator("a[href^='javascript:']").count() == 0


def test_its_text_is_shown_as_written(hostile_html, open_page):
    page = open_page(hostile_html / "index.html")
    name = page.locator(".pb-papers .pb-name", has_text="hit()")
    assert name.text_content() == HOSTILE
    assert name.locator("bdi").count() == 1
    assert (
        "<script>hit()</script>"
        in open_page(hostile_html / "scoreboard.html").locator("main").inner_text()
    )


def test_filters_and_search_take_it_as_text(hostile_html, open_page):
    page = open_page(hostile_html / "index.html")
    page.locator(".pb-search input").fill("onerror")
    assert page.locator(".pb-papers tbody .pb-name").count() == 1
    page.locator(".pb-clear").click()
    page.locator(".pb-facet", has=page.locator("input[name=venue]")).locator("summary").click()
    page.locator("input[name=venue]").first.check()
    page.locator("input[name=venue]").last.check()
    assert page.locator(".pb-papers tbody .pb-name").count() == 3
    page.locator("input[name=venue]").first.uncheck()
    rest = page.locator(".pb-papers tbody .pb-name").count()
    page.reload()
    assert page.locator(".pb-papers tbody .pb-name").count() == rest


def test_verdicts_of_claims(hostile_html, open_page):
    for verdict, names in (
        ("holds", {"alpha", "evil"}),
        ("fails", {"alpha"}),
        ("not_testable", {"alpha"}),
    ):
        page = open_page(f"{(hostile_html / 'index.html').as_uri()}#verdict={verdict}")
        links = page.locator(".pb-papers tbody .pb-name").evaluate_all(
            "all => all.map(a => a.getAttribute('href'))"
        )
        assert set(links) == {f"papers/{name}.html" for name in names}
    assert page.locator("input[name=verdict][value=tie]").count() == 0


def test_marks_that_turn_the_text_around_are_refused():
    for mark in "\u202e\u2067":
        with pytest.raises(RecordError, match=f"invisible character U\\+{ord(mark):04X}"):
            parse_record(record("evil", title=f"Good {mark}title"), "papers/evil.ipynb")


def test_a_script_in_a_link_is_refused():
    for field, value in (
        ("links", [{"label": "x", "url": "javascript:hit()"}]),
        ("code", {"url": "javascript:hit()", "license": None, "official": True}),
        ("links", [{"label": "x", "url": " JAVASCRIPT:hit()"}]),
        ("links", [{"label": "x", "url": "data:text/html,<script>hit()</script>"}]),
    ):
        with pytest.raises(RecordError, match="must be an address that starts with http"):
            parse_record(record("evil", **{field: value}), "papers/evil.ipynb")

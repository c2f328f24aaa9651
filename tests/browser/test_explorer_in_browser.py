"""The explorer of the landing page: filters, search, shared views, keyboard, phone, no scripts."""

import pytest
from playwright.sync_api import expect
from tests.browser.hostile import ROOT

from prunebook.catalog import VOCABULARY, read_papers
from prunebook.site.published import read_published
from prunebook.site.verdicts import is_own


@pytest.fixture(scope="module")
def records():
    return [paper.record for paper in read_papers(ROOT)]


def shorts(records, **facets):
    """The short names of the records that have, for each facet, one of the values given."""
    return [
        record.short
        for record in records
        if all(set(values) & set(record.facets()[facet].values) for facet, values in facets.items())
    ]


def shown(page):
    return [name.strip() for name in page.locator(".pb-papers tbody .pb-name").all_inner_texts()]


def tick(page, facet, value):
    group = page.locator(".pb-facet", has=page.locator(f'input[name="{facet}"]'))
    if group.get_attribute("open") is None:
        group.locator("summary").click()
    group.locator(f'input[value="{value}"]').check()


def test_all_papers_are_shown_in_the_tables_order(html, open_page, records):
    page = open_page(html / "index.html")
    assert shown(page) == [record.short for record in records]
    assert page.locator(".pb-shown").inner_text() == f"{len(records)} of {len(records)} papers"


@pytest.mark.parametrize(
    "facets",
    [
        {"type": ["Unstructured"], "weight": ["Frozen"]},
        {"data": ["Calibration"], "retrain": ["Without"]},
        {"type": ["Unstructured", "Structured"], "criteria": ["Hessian"]},
    ],
)
def test_two_facets_leave_exactly_the_right_papers(html, open_page, records, facets):
    page = open_page(html / "index.html")
    for facet, values in facets.items():
        for value in values:
            tick(page, facet, value)
    expected = shorts(records, **facets)
    assert 0 < len(expected) < len(records)
    assert shown(page) == expected
    assert page.locator(".pb-shown").inner_text() == f"{len(expected)} of {len(records)} papers"


def test_every_value_of_every_facet_matches_by_its_address(html, open_page, records):
    page = open_page(html / "index.html")
    for facet, values in VOCABULARY.items():
        for value in values:
            expected = shorts(records, **{facet: [value]})
            box = f'input[name="{facet}"][value="{value}"]'
            assert page.locator(box).count() == (1 if expected else 0)
            if expected:
                page.evaluate(
                    "view => { location.hash = new URLSearchParams(view).toString() }",
                    {facet: value},
                )
                page.wait_for_function("box => document.querySelector(box).checked", arg=box)
                assert shown(page) == expected


def test_year_venue_and_whether_it_runs(html, open_page, records):
    page = open_page(html / "index.html")
    for query, wanted in (
        ("year=2023", lambda record: record.year == 2023),
        ("venue=ICLR", lambda record: record.venue.name == "ICLR"),
        ("kind=conference", lambda record: record.venue.kind == "conference"),
        ("runs=runs", lambda record: record.is_implemented),
        ("runs=not+run+yet", lambda record: not record.is_implemented),
    ):
        expected = [record.short for record in records if wanted(record)]
        name, value = query.replace("+", " ").split("=")
        assert page.locator(f'input[name="{name}"][value="{value}"]').count() == (
            1 if expected else 0
        )
        if not expected:
            continue
        page.evaluate("query => { location.hash = query }", query)
        expect(page.locator(".pb-shown")).to_have_text(f"{len(expected)} of {len(records)} papers")
        assert shown(page) == expected, query


def test_verdicts(html, open_page):
    papers = read_published(ROOT)
    page = open_page(html / "index.html")
    for verdict in ("holds", "tie", "fails", "not_testable"):
        expected = [
            published.paper.record.short
            for published in papers
            if verdict in [claim["verdict"] for claim in published.claims if is_own(claim)]
        ]
        assert page.locator(f'input[name="verdict"][value="{verdict}"]').count() == (
            1 if expected else 0
        )
        if expected:
            tick(page, "verdict", verdict)
            assert shown(page) == expected
            page.locator(".pb-clear").click()


def test_a_shared_address_restores_the_view(html, open_page, records):
    page = open_page(html / "index.html")
    tick(page, "type", "Unstructured")
    tick(page, "weight", "Frozen")
    page.locator("select[name=sort]").select_option("year:asc")
    page.locator(".pb-search input").fill("mask")
    wanted = shown(page)
    count = len(shorts(records, type=["Unstructured"], weight=["Frozen"]))
    assert 0 < len(wanted) < count
    other = open_page(page.url)
    assert shown(other) == wanted
    assert other.locator(".pb-search input").input_value() == "mask"
    assert other.locator("select[name=sort]").input_value() == "year:asc"
    assert other.locator(".pb-facet input:checked").count() == 2
    assert other.locator(".pb-facet summary").first.inner_text() == "Type (1)"


def test_back_and_forward(html, open_page, records):
    page = open_page(html / "index.html")
    tick(page, "type", "Structured")
    tick(page, "type", "Unstructured")
    for move, names in (
        (page.go_back, shorts(records, type=["Structured"])),
        (page.go_back, [record.short for record in records]),
        (page.go_forward, shorts(records, type=["Structured"])),
    ):
        move()
        expect(page.locator(".pb-shown")).to_have_text(f"{len(names)} of {len(records)} papers")
        assert shown(page) == names


def test_text_search_finds_titles_authors_and_tags(html, open_page, records):
    page = open_page(html / "index.html")
    search = page.locator(".pb-search input")
    for record in records:
        search.fill(record.title)
        assert record.short in shown(page)
        search.fill(record.authors[-1])
        assert record.short in shown(page)
    search.fill("no paper says this")
    assert shown(page) == []
    assert "No paper fits" in page.locator(".pb-papers").inner_text()


def test_clear_all(html, open_page, records):
    page = open_page(html / "index.html")
    tick(page, "type", "Structured")
    page.locator(".pb-search input").fill("x")
    page.locator("select[name=sort]").select_option("year:asc")
    page.locator(".pb-clear").click()
    assert shown(page) == [record.short for record in records]
    assert "#" not in page.url
    assert page.locator(".pb-facet input:checked").count() == 0


def test_an_anchor_in_the_address_is_no_view(html, open_page, records):
    page = open_page(f"{(html / 'index.html').as_uri()}#the-papers")
    assert len(shown(page)) == len(records)
    assert page.locator(".pb-shown").inner_text() == f"{len(records)} of {len(records)} papers"
    tick(page, "type", "Structured")
    assert page.url.endswith("#type=Structured")


def test_sorting_by_a_heading(html, open_page, records):
    page = open_page(html / "index.html")
    page.locator('th[data-name="year"]').click()
    expect(page.locator('th[data-name="year"]')).to_have_attribute("aria-sort", "ascending")
    years = [int(text) for text in page.locator("tbody td.pb-year").all_inner_texts()]
    assert years == sorted(record.year for record in records)
    assert page.url.endswith("#sort=year%3Aasc")
    assert page.locator("select[name=sort]").input_value() == "year:asc"


def test_keyboard_alone(html, open_page, records):
    page = open_page(html / "index.html")
    press = page.keyboard.press
    press("Tab")
    press("Enter")  # the link that skips to the content

    def tab_to(what: str):
        for _ in range(60):
            press("Tab")
            if page.evaluate("what => document.activeElement.matches(what)", what):
                return
        raise AssertionError(f"the Tab key does not reach {what}")

    tab_to(".pb-search input")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab_to("summary")
    press("Enter")
    tab_to('input[name=type][value="Unstructured"]')
    press("Space")
    assert shown(page) == shorts(records, type=["Unstructured"])
    press("Escape")
    assert page.evaluate("document.activeElement.matches('summary')")
    assert page.locator(".pb-facet[open]").count() == 0
    tab_to('th[data-name="year"] *, th[data-name="year"]')
    for key, direction in (("Enter", "ascending"), ("Space", "descending")):
        press(key)
        expect(page.locator('th[data-name="year"]')).to_have_attribute("aria-sort", direction)
        years = [int(text) for text in page.locator("tbody td.pb-year").all_inner_texts()]
        assert years == sorted(years, reverse=direction == "descending")
    tab_to(".pb-name")
    press("Enter")
    page.wait_for_url("**/papers/*.html")


@pytest.mark.parametrize("width", [1200, 1280, 1920])
def test_in_a_wide_window_a_row_has_its_columns_and_the_takeaway_below(html, open_page, width):
    page = open_page(html / "index.html", width=width)
    left = "cells => cells.map(cell => Math.round(cell.getBoundingClientRect().x))"
    heads = page.locator(".pb-papers th").evaluate_all(left)
    assert heads == sorted(set(heads))
    for row in page.locator(".pb-papers tbody tr").all():
        cells = row.locator("td:not(.pb-paper)")
        assert cells.evaluate_all(left) == heads[1:]
        bottom = max(
            cells.evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().bottom)")
        )
        about = row.locator(".pb-about").bounding_box()
        assert about["y"] >= bottom
        assert about["width"] > heads[4] - heads[0]
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_on_a_phone_the_filters_wait_behind_a_button(html, open_page, records):
    page = open_page(html / "index.html", width=390)
    assert not page.locator("#pb-facets").is_visible()
    page.get_by_role("button", name="Filters").click()
    tick(page, "type", "Unstructured")
    assert page.get_by_role("button", name="Filters (1)").get_attribute("aria-expanded") == "true"
    assert shown(page) == shorts(records, type=["Unstructured"])
    assert page.locator("tbody tr").first.evaluate("row => getComputedStyle(row).display") == "grid"
    for cell in page.locator("tbody tr:visible").first.locator("td:not(.pb-paper)").all():
        assert cell.locator("> *").count() == 1  # beside its label, in one column
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_without_javascript_the_table_is_plain(html, open_page, records):
    page = open_page(html / "index.html", java_script_enabled=False)
    assert shown(page) == [record.short for record in records]
    assert not page.locator(".pb-tools").is_visible()
    first = page.locator("tbody tr").first.inner_text()
    assert records[0].takeaway in first
    assert records[0].facets()["type"].values[0] in first

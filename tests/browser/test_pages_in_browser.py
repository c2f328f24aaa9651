"""Every kind of page: faults, width, accessibility, links, weight, print, unknown addresses."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import expect
from tests.browser.hostile import ROOT

from prunebook.catalog import read_address, read_papers
from prunebook.site.agreement import disagreements
from prunebook.site.book import read_book
from prunebook.site.check import check_site, expectations

PAGES = (
    "index",
    "papers/wanda",
    "papers/owl",
    "papers/minitron",
    "scoreboard",
    "leaderboard",
    "concepts/types",
    "concepts/runtimes",
    "concepts/kernels",
    "challenge/challenge",
)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_is_accessible_in_light_and_wide_in_the_dark(
    html, open_page, violations, name
):
    page = open_page(html / f"{name}.html", width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert violations(page) == []
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="dark")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 64
    assert violations(page, ["color-contrast", "link-in-text-block"]) == []


def test_open_filters_are_accessible(html, open_page, violations):
    page = open_page(html / "index.html")
    page.locator(".pb-facet summary").first.click()
    assert violations(page) == []


def test_every_page_opens_without_a_fault(html, open_page):
    page = open_page(html / "index.html")
    for path in sorted(path for path in html.rglob("*.html") if "_static" not in path.parts):
        if path.name != "404.html":
            page.goto(path.as_uri())


def test_every_internal_link_and_anchor_resolves(html):
    assert check_site(html, expectations(read_book(ROOT))) == []


def test_no_two_places_of_the_site_disagree(html):
    assert disagreements(html) == []


def test_the_anchors_of_all_challenges_resolve(html, open_page):
    anchors = [paper.record.challenge for paper in read_papers(ROOT)]
    page = open_page(html / "challenge" / "challenge.html")
    for anchor in anchors:
        page.goto(f"{(html / 'challenge' / 'challenge.html').as_uri()}#{anchor}")
        assert page.evaluate("document.querySelector(':target') !== null"), anchor


def test_the_landing_page_is_light_and_opens_within_a_second(html, open_page):
    page = open_page(html / "404.html".replace("404", "scoreboard"))
    requests = set()
    times = []
    page.on("request", lambda request: requests.add(unquote(urlsplit(request.url).path)))
    for _ in range(3):
        page.goto((html / "index.html").as_uri(), wait_until="load")
        times.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        page.goto("about:blank")
    sizes = {
        Path(path).name: Path(path).stat().st_size for path in requests if Path(path).is_file()
    }
    assert "datatables.js" in sizes
    assert not [
        name for name in sizes if "mathjax" in name or "tex-" in name or "fontawesome" in name
    ]
    assert sum(sizes.values()) < 2_000_000
    assert min(times) < 1000


def test_only_pages_with_such_tables_load_the_table_library(html):
    having = {
        path.relative_to(html).as_posix()
        for path in html.rglob("*.html")
        if "datatables.js" in path.read_text(encoding="utf-8")
    }
    assert having <= {"index.html", "leaderboard.html"}
    assert "index.html" in having


def test_the_leaderboard_sorts_numbers_by_size(hostile_html, open_page):
    page = open_page(hostile_html / "leaderboard.html")
    table = page.locator(".pb-sortable table").first
    heading = table.locator("th", has_text="Perplexity")
    column = heading.evaluate("th => th.cellIndex")
    for direction in ("ascending", "descending"):
        heading.click()
        expect(heading).to_have_attribute("aria-sort", direction)
        numbers = [
            float(row.locator("td").nth(column).inner_text())
            for row in table.locator("tbody tr").all()
        ]
        assert len(numbers) > 1
        assert numbers == sorted(numbers, reverse=direction == "descending")


def test_a_paper_prints_without_the_furniture(html, open_page):
    page = open_page(html / "papers" / "wanda.html", scheme="dark")
    page.emulate_media(media="print")
    for furniture in (
        ".bd-sidebar-primary",
        ".bd-sidebar-secondary",
        ".bd-header-article",
        ".prev-next-footer",
    ):
        assert not page.locator(furniture).first.is_visible(), furniture
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert set(
        page.locator("article .sd-badge").evaluate_all(
            "all => all.map(badge => getComputedStyle(badge).color)"
        )
    ) == {"rgb(0, 0, 0)"}
    wrap = "pre => getComputedStyle(pre).whiteSpace"
    assert set(page.locator("article pre").evaluate_all(f"all => all.map({wrap})")) == {"pre-wrap"}
    assert page.locator("article h1").is_visible()
    colour = "span => getComputedStyle(span).color"
    assert set(page.locator("article pre span").evaluate_all(f"all => all.map({colour})")) == {
        "rgb(0, 0, 0)"
    }
    link = page.locator("article a[href^=http]").first
    assert "http" in link.evaluate("a => getComputedStyle(a, '::after').content")


def test_the_scoreboard_on_a_phone_shows_each_claim_in_full(hostile_html, open_page):
    page = open_page(hostile_html / "scoreboard.html", width=390)
    claims = page.get_by_role("region", name="Claims", exact=True)
    assert claims.evaluate("box => box.scrollWidth <= box.clientWidth")
    for cell in claims.locator("tbody tr").first.locator("td").all():
        box = cell.bounding_box()
        assert box["width"] > 0
        assert box["x"] + box["width"] <= 390


def test_the_scoreboard_filters_its_claims_and_the_address_keeps_the_view(hostile_html, open_page):
    page = open_page(hostile_html / "scoreboard.html")
    rows = page.locator(".pb-claims tbody tr")
    count = rows.count()
    assert page.locator(".pb-filter").is_visible()
    page.get_by_label("Verdict").select_option("fails")
    visible = page.locator(".pb-claims tbody tr:visible")
    assert 0 < visible.count() < count
    assert {row.get_attribute("data-verdict") for row in visible.all()} == {"fails"}
    assert (
        page.locator(".pb-filter .pb-shown").inner_text() == f"{visible.count()} of {count} claims"
    )
    assert page.url.endswith("#verdict=fails")
    page.reload()
    assert page.get_by_label("Verdict").input_value() == "fails"
    page.get_by_role("button", name="Clear all").click()
    assert page.locator(".pb-claims tbody tr:visible").count() == count


def test_folded_code_opens_and_closed_code_is_not_printed(hostile_html, open_page):
    page = open_page(hostile_html / "papers" / "alpha.html")
    folded = page.locator("details.hide", has_text="Show the code behind these claims").first
    code = folded.locator("pre")
    assert not code.is_visible()
    assert page.locator(".pb-claim").first.is_visible()
    folded.locator("summary").click()
    assert "pb.claim(" in code.inner_text()
    assert page.get_by_text("Show the values of this run").count() == 1
    page.emulate_media(media="print")
    assert code.is_visible()
    assert not page.get_by_text("Show the values of this run").is_visible()


@pytest.mark.parametrize("name", ["index", "papers/wanda", "concepts/details/LoRA", "search"])
def test_every_page_names_the_feed(html, name):
    text = (html / f"{name}.html").read_text(encoding="utf-8")
    (link,) = re.findall(
        r'<link rel="alternate" type="application/atom\+xml" title="[^"]+" href="([^"]+)" />', text
    )
    assert link == "../" * name.count("/") + "feed.xml"
    assert (
        (html / f"{name}.html")
        .parent.joinpath(link)
        .read_text(encoding="utf-8")
        .startswith("<?xml")
    )
    assert text.index(link) < text.index("</head>")


def test_no_title_says_the_same_twice(html):
    for path in html.rglob("*.html"):
        if "_static" not in path.parts:
            title = re.search("<title>(.*?)</title>", path.read_text(encoding="utf-8"), re.DOTALL)[
                1
            ]
            parts = [part.strip() for part in re.split("&#8212;| - ", title)]
            assert len(parts) == len(set(parts)) == 2, path


def test_pages_tell_other_sites_what_they_are(html, open_page):
    site = read_address(ROOT).site
    page = open_page(html / "papers" / "wanda.html")
    meta = dict(
        page.locator("meta[property^='og:']").evaluate_all(
            "all => all.map(m => [m.getAttribute('property'), m.content])"
        )
    )
    assert meta["og:url"] == f"{site}papers/wanda.html"
    assert meta["og:title"].startswith("Wanda")
    assert meta["og:site_name"] == "The Pruning Book"
    assert len(meta["og:description"]) > 80
    image = meta["og:image"]
    assert image.startswith(site)
    assert (html / image.removeprefix(site)).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("unknown", ["nowhere", "papers/nowhere.html", "a/b/c/"])
def test_an_unknown_address_gets_a_page_whose_links_work(served, browser, unknown):
    site = served(urlsplit(read_address(ROOT).site).path)
    page = browser.new_page()
    answers = {}
    page.on("response", lambda response: answers.update({response.url: response.status}))
    assert page.goto(site + unknown).status == 404
    assert page.locator("article h1").inner_text() == "Page not found"
    assert {url for url, status in answers.items() if status == 404} == {site + unknown}
    page.get_by_role("link", name="the table of the landing page").click()
    assert page.url == f"{site}index.html"
    assert page.locator(".pb-papers").is_visible()
    page.close()

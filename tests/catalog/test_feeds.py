"""The Atom feed as a feed reader reads it, and the sitemap."""

import xml.etree.ElementTree as ET

import feedparser
from tests.catalog.records import ADDRESS, hostile_record, parsed
from tests.tiny_book import other_record, record

from prunebook.catalog import parse_record
from prunebook.catalog.feeds import feed, sitemap


def test_the_feed_lists_the_latest_first():
    other = parse_record(other_record(added=parsed().added.replace(day=24)), "here")
    parsed_feed = feedparser.parse(feed(ADDRESS, "Book", [parsed(), other]))
    assert not parsed_feed.bozo
    assert parsed_feed.version == "atom10"
    assert parsed_feed.feed.updated == "2026-11-24T00:00:00Z"
    assert parsed_feed.feed.links[0].href == "https://x.org/book/feed.xml"
    newest, oldest = parsed_feed.entries
    assert (newest.title, newest.published) == ("Scaling: Laws", "2026-11-24T00:00:00Z")
    assert oldest.id == oldest.link == "https://x.org/book/papers/wanda.html"
    assert oldest.title == "Wanda: A Simple and Effective Pruning Approach"
    assert oldest.summary == "Scores a weight by its size times the norm of its input."
    assert [author.name for author in oldest.authors] == ["Mingjie Sun", "Zhuang Liu"]
    assert [tag.term for tag in oldest.tags][:3] == [
        "type=Unstructured",
        "type=Semi-structured",
        "criteria=Wanda",
    ]


def test_papers_of_one_day_come_by_slug():
    records = [parse_record(record(slug=slug, challenge=slug), "here") for slug in ("b", "c", "a")]
    entries = feedparser.parse(feed(ADDRESS, "Book", records)).entries
    assert [entry.id.rsplit("/", 1)[1] for entry in entries] == ["a.html", "b.html", "c.html"]


def test_a_feed_without_papers_is_valid():
    found = feedparser.parse(feed(ADDRESS, "Book", []))
    assert (found.bozo, found.entries, found.feed.title) == (False, [], "Book")


def test_a_hostile_record_stays_text_in_the_feed():
    hostile = hostile_record()
    text = feed(ADDRESS, "Book", [hostile])
    (item,) = feedparser.parse(text).entries
    assert item.summary_detail.type == "text/plain"
    summary = ET.fromstring(text.encode()).findtext("{*}entry/{*}summary")
    assert summary == hostile.takeaway


def test_addresses_of_a_sitemap_are_text():
    addresses = ["https://x.org/?a=1&b=<2>", "https://x.org/ä.html"]
    root = ET.fromstring(sitemap(addresses).encode())
    assert [url.findtext("{*}loc") for url in root] == addresses

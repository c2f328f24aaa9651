"""The Atom feed of the papers and the sitemap, as XML."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from .address import Address
from .schema import Record
from .vocabulary import VOCABULARY

FEED = "feed.xml"
_ATOM = "http://www.w3.org/2005/Atom"
_SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"


def page_address(address: Address, slug: str) -> str:
    """Where the paper's page is on the site."""
    return f"{address.site}papers/{slug}.html"


def feed(address: Address, title: str, records: Sequence[Record]) -> str:
    """The Atom feed: latest added first, then by slug. It is as old as its latest entry.

    Args:
        address: where the project lives.
        title: title of the feed, and its author.
        records: the papers.
    """
    records = sorted(records, key=lambda record: (-record.added.toordinal(), record.slug))
    root = ET.Element("feed", xmlns=_ATOM)
    _add(root, "id", address.site)
    _add(root, "title", title)
    _add(root, "subtitle", "Papers as they come into the book")
    updated = "1970-01-01T00:00:00Z"
    if records:
        updated = _day(records[0])
    _add(root, "updated", updated)
    _add(ET.SubElement(root, "author"), "name", title)
    _add(root, "link", rel="self", type="application/atom+xml", href=f"{address.site}{FEED}")
    _add(root, "link", rel="alternate", type="text/html", href=address.site)
    for record in records:
        _entry(ET.SubElement(root, "entry"), address, record)
    return _text(root)


def sitemap(addresses: Iterable[str]) -> str:
    """The sitemap of the pages at `addresses`."""
    root = ET.Element("urlset", xmlns=_SITEMAP)
    for address in addresses:
        _add(ET.SubElement(root, "url"), "loc", address)
    return _text(root)


def _entry(entry: ET.Element, address: Address, record: Record) -> None:
    page = page_address(address, record.slug)
    _add(entry, "id", page)
    _add(entry, "title", record.heading)
    _add(entry, "link", rel="alternate", type="text/html", href=page)
    if record.url:
        _add(entry, "link", rel="related", type="text/html", href=record.url)
    _add(entry, "published", _day(record))
    _add(entry, "updated", _day(record))
    for name in record.authors:
        _add(ET.SubElement(entry, "author"), "name", name)
    for facet in VOCABULARY:
        for value in record.facets()[facet].values:
            _add(entry, "category", term=f"{facet}={value}", label=f"{facet.title()}: {value}")
    _add(entry, "summary", record.takeaway)


def _day(record: Record) -> str:
    return f"{record.added.isoformat()}T00:00:00Z"


def _add(parent: ET.Element, name: str, text: str | None = None, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def _text(root: ET.Element) -> str:
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'

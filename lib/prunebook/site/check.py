"""Check built pages: all there, outputs shown, links and anchors found, nothing from a network."""

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..catalog.source_graph import PACKAGE
from ..files import cache_folder
from .book import Book

_RESOURCES = ("script", "img", "iframe", "source")


@dataclass(frozen=True)
class Expected:
    """How often a page must show each kind of output; 0 for pages without any."""

    claims: int = 0
    figures: int = 0
    tables: int = 0


def expectations(book: Book) -> dict[str, Expected]:
    """Page of the table of contents -> what it must show.

    An executed paper shows at least one output of each kind.
    """
    expected = {name: Expected() for name in book.page_names}
    for published in book.papers:
        if published.execution is not None:
            expected[f"papers/{published.paper.slug}"] = Expected(
                max(len(published.claims), 1),
                max(published.images, 1),
                max(len(published.results), 1),
            )
    for page in book.pages:
        expected[page.name] = Expected(figures=page.images, tables=page.tables)
    return expected


def check_site(html: Path, pages: dict[str, Expected]) -> list[str]:
    """Everything that is wrong with the built pages, one problem a line.

    Args:
        html: the folder of the built site.
        pages: page without its ending -> what it must show.
    """
    paths = sorted(path for path in html.rglob("*.html") if html / "_static" not in path.parents)
    parsed = {path.resolve(): _Page.read(path) for path in paths}
    problems = _missing_outputs(html, pages, parsed)
    own_paths = machine_paths()
    for path, page in parsed.items():
        where = path.relative_to(html.resolve()).with_suffix("").as_posix()
        text = path.read_text(encoding="utf-8")
        for own in own_paths:
            if own in text:
                problems.append(f"{where}: shows {own}, a path of this machine")
        for address in page.remote:
            problems.append(f"{where}: loads {address} from a network")
        for link in page.links:
            if not _resolves(link, path, parsed):
                problems.append(f"{where}: link to {link} leads nowhere")
    return problems


def _missing_outputs(
    html: Path, pages: dict[str, Expected], parsed: dict[Path, "_Page"]
) -> list[str]:
    """Pages that are not there, and outputs that they do not show."""
    problems = []
    for name, expected in pages.items():
        page = parsed.get((html / f"{name}.html").resolve())
        if page is None:
            problems.append(f"{name}: the page is missing")
            continue
        for kind in ("claims", "figures", "tables"):
            needed = getattr(expected, kind)
            shown = getattr(page, kind)
            if shown < needed:
                problems.append(f"{name}: shows {shown} of {needed} {kind}")
    return problems


def machine_paths() -> list[str]:
    """Folders that a page must not name: of this library, its packages, the cache and the user."""
    folders = [PACKAGE.parent, Path(sys.prefix), cache_folder(), Path.home()]
    return list(dict.fromkeys(f"{folder}/" for folder in folders if folder != Path(folder.anchor)))


def _resolves(link: str, path: Path, parsed: dict[Path, "_Page"]) -> bool:
    """Does an internal link on the page at `path` lead to a file, and to an anchor in it?"""
    parts = urlsplit(link)
    target = path
    if parts.path:
        target = (path.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return False
    if not parts.fragment or target not in parsed:
        return True
    return unquote(parts.fragment) in parsed[target].anchors


@dataclass
class _Page(HTMLParser):
    """What one page holds: anchors, internal links, resources from elsewhere, outputs."""

    anchors: set[str] = field(default_factory=set)
    links: dict[str, None] = field(default_factory=dict)
    remote: list[str] = field(default_factory=list)
    claims: int = 0
    figures: int = 0
    tables: int = 0
    # For each open <div>: is it an output of a cell?
    _open: list[bool] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    @classmethod
    def read(cls, path: Path) -> "_Page":
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        return page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        classes = values.get("class", "").split()
        if tag == "div":
            self._open.append("cell_output" in classes)
        self.claims += tag == "section" and "pb-claim" in classes
        self.tables += tag == "table" and any(self._open)
        self.figures += tag == "img" and any(self._open)
        attribute = "src"
        if tag in ("a", "link"):
            attribute = "href"
        self._file_address(tag, values.get(attribute, "").strip(), values.get("rel", "").split())

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._open:
            self._open.pop()

    def _file_address(self, tag: str, address: str, relation: list[str]) -> None:
        """Put the address of a link or a resource where it belongs."""
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            loads = tag in _RESOURCES or (tag == "link" and "stylesheet" in relation)
            if loads and parts.scheme != "data":
                self.remote.append(address)
        elif address and address != "#" and tag in ("a", "link", *_RESOURCES):
            self.links[address] = None

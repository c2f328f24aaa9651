"""The form of a paper's links: https, addresses of known sites in their usual shape, none twice."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

from .reader import tags_of
from .schema import Record

# site -> the shape of its addresses, and the same in words
_SHAPES = {
    "github.com": (
        r"https://github\.com/[\w-]+/(?![\w.-]+\.git$)[\w.-]+"
        r"(/(tree|blob|issues|pull|discussions|commit|releases|wiki)(/[^/\s]+)*)?",
        "https://github.com/owner/name, or a folder, file, issue or pull request in it",
    ),
    "arxiv.org": (
        r"https://arxiv\.org/abs/(\d{4}\.\d{4,5}|[a-z-]+/\d{7})",
        "https://arxiv.org/abs/2306.11695",
    ),
    "openreview.net": (
        r"https://openreview\.net/(forum|group)\?id=[\w./-]+(&noteId=[\w-]+)?",
        "https://openreview.net/forum?id=PxoFut3dWW",
    ),
}
_UNREAD = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.DOTALL)  # code and formulas
_LINK = re.compile(r"\]\(<?([^)>\s]+)")


def record_link_faults(record: Record) -> Iterator[str]:
    """Faults of the record's addresses, a line each."""
    fields = {}
    if record.code:
        fields["code.url"] = record.code.url
    fields |= {f"links[{index}].url": link.url for index, link in enumerate(record.links)}
    sources = {
        f"runs_in[{index}].source": entry.source for index, entry in enumerate(record.runs_in)
    }
    sources |= {
        f"corrections[{index}].source": entry.source
        for index, entry in enumerate(record.corrections)
    }
    for field, url in {**fields, **sources}.items():
        if url and (fault := address_fault(url)):
            yield f"paper.{field}: {fault}"
    owners = {}  # address -> what has it
    if record.url:
        owners[record.url] = "the paper's own page, which is linked already"
    for field, url in fields.items():
        if url in owners:
            yield f"paper.{field}: {url} is the address of {owners[url]}; remove one"
        owners.setdefault(url, f"paper.{field}")


def cell_link_faults(notebook: nbformat.NotebookNode, path: Path) -> Iterator[str]:
    """Faults of the links in the markdown cells, a line each: bad addresses, missing files.

    Args:
        notebook: the notebook of a paper.
        path: where it is; links to files start there.
    """
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        where = f"cell {index}" + "".join(f" ({tag})" for tag in tags_of(cell)[:1])
        for link in dict.fromkeys(_LINK.findall(_UNREAD.sub("", cell.source))):
            if urlsplit(link).scheme in ("http", "https"):
                if fault := address_fault(link):
                    yield f"{where}: {fault}"
            elif urlsplit(link).scheme:
                yield f"{where}: {link} must be an https address, or a file of the book"
            elif not _leads(link, path):
                yield (
                    f"{where}: link to {link} leads nowhere; papers are wanda.ipynb, pages "
                    "../concepts/types.md"
                )


def address_fault(url: str) -> str | None:
    """What is wrong with the form of an address and what would be right, None for nothing."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return f"{url} must begin with https://"
    site = parts.netloc.lower().removeprefix("www.").removeprefix("export.")
    pattern, words = _SHAPES.get(site, (None, None))
    if pattern and not re.fullmatch(pattern, url.partition("#")[0]):
        return f"{url} must have the form {words}"
    return None


def _leads(link: str, path: Path) -> bool:
    """Is the target a file, or a heading of the notebook itself?"""
    target = unquote(urlsplit(link).path)
    return not target or (path.parent / target).is_file()

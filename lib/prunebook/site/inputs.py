"""Whether anything that the site is made from has changed: the times of the files tell, unread."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..catalog.source_graph import PACKAGE
from ..runs.cache_key import pinned_versions
from .changed import head_commit

# The inputs in the book's folder: files, and folders with all below them.
_SOURCES = (
    "_config.yml",
    "_toc.yml",
    "index.md",
    "papers",
    "concepts",
    "challenge",
    "benchmarks/results",
    "_build/executed",
)


def inputs_state(root: Path, versions: Mapping[str, str]) -> str:
    """A hash of the names, sizes and times of all inputs, of the versions and of the commit.

    Args:
        root: the book's folder.
        versions: the versions of the tools that build the site, by their names.
    """
    digest = hashlib.sha256()
    digest.update(repr((sorted(versions.items()), pinned_versions(), head_commit(root))).encode())
    for path in _files(root):
        state = path.stat()
        digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    """All input files, those of the library included, in a fixed order."""
    for place in (*(root / name for name in _SOURCES), PACKAGE):
        if place.is_file():
            yield place
        for path in sorted(place.rglob("*")):
            hidden = path.name.startswith(".") or "__pycache__" in path.parts
            if path.is_file() and not hidden and path.suffix != ".log":
                yield path

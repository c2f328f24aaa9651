"""Assemble the site's sources under `_build/site/`: rendered pages, files as they are, scripts."""

import shutil
from pathlib import Path

from ..files import atomic_folder, write_atomic
from .book import CONFIG, Book
from .pages.render import render_site
from .table_scripts import write_scripts
from .texts import FOLDERS

_STATIC = Path(__file__).parent / "static"


def assemble(book: Book) -> Path:
    """Write the site's sources and return their folder, which is replaced as a whole.

    Raises:
        UserError: a page lacks the markers for what is generated or names an unknown tag, or the
            folder cannot be written.
    """
    site = book.root / "_build" / "site"
    with atomic_folder(site) as folder:
        shutil.copyfile(book.root / CONFIG, folder / CONFIG)
        # The Markdown of these folders is rendered; the rest, e.g. pictures, is copied.
        for name in FOLDERS:
            rendered = shutil.ignore_patterns("*.md")
            shutil.copytree(book.root / name, folder / name, ignore=rendered)
        shutil.copytree(_STATIC, folder / "_static")
        write_scripts(folder / "_scripts")
        # Readers download the notebooks as they stand in the sources.
        (folder / "_notebooks").mkdir()
        for paper in book.bare_papers:
            shutil.copyfile(paper.path, folder / "_notebooks" / paper.path.name)
        for name, content in render_site(book).items():
            write_atomic(folder / name, content)
    return site

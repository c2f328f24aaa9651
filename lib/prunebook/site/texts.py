"""The book's pages in Markdown: read as text, and refused where they could run something."""

from pathlib import Path

from ..errors import UserError
from ..runs.text_notebooks import front_matter

LANDING = "index.md"
FOLDERS = ("challenge", "concepts")
# What front matter may set. Other settings of MyST could have a build run code, or load code into
# Sphinx.
_SETTINGS = ("file_format", "html_theme.sidebar_secondary.remove", "jupytext", "kernelspec")
_PAGE_ENDINGS = (".md", ".ipynb", ".rst")


def read_texts(root: Path) -> dict[str, str]:
    """Read the landing page and all pages of the folders: path in the book -> text.

    Raises:
        UserError: a page is not Markdown, cannot be read, or its front matter sets what it may not.
    """
    paths = [root / LANDING]
    for folder in FOLDERS:
        paths += (root / folder).rglob("*")
    texts = {}
    for path in sorted(path for path in paths if path.suffix in _PAGE_ENDINGS):
        name = path.relative_to(root).as_posix()
        if path.suffix != ".md":
            raise UserError(f"{name}: is {path.suffix}; a page of text must be Markdown, .md")
        settings = front_matter(path, name)
        texts[name] = path.read_text(encoding="utf-8")
        _check_settings(name, texts[name], settings)
    return texts


def _check_settings(name: str, text: str, settings: dict) -> None:
    """Refuse front matter that could have the build itself run something.

    Raises:
        UserError: the front matter holds a setting that is not allowed, or only Sphinx would read
            it.
    """
    opening = text.removeprefix("\ufeff").partition("\n")[0].rstrip()
    if opening.startswith("---") and not settings:
        raise UserError(
            f"{name}: begins with {opening!r}, which opens no front matter that can be read"
        )
    for key in settings:
        if key not in _SETTINGS:
            allowed = ", ".join(_SETTINGS)
            raise UserError(f"{name}: the front matter sets {key!r}; allowed: {allowed}")

"""Text notebooks: pages in MyST Markdown with code cells, marked by a `kernelspec` in their front
matter."""

import re
from pathlib import Path
from typing import Any

import nbformat
import yaml

from ..errors import UserError
from .installed import versions_of

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$", re.DOTALL | re.MULTILINE)
# the pages' blocks that may hold what looks like a cell
_BLOCKS = {"amsmath", "colon_fence", "dollarmath"}
SOURCE_MAP = "source_map"


def front_matter(path: Path, shown: str) -> dict[str, Any]:
    """The front matter of the page at `path`; empty if it has none.

    Args:
        shown: the page as messages give it.
    Raises:
        UserError: the page cannot be read, or its front matter is no mapping in YAML.
    """
    try:
        found = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
        content = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{shown}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict | None):
        raise UserError(
            f"{shown}: the front matter must be a mapping, as in `kernelspec: {{name: python3}}`"
        )
    return content or {}


def is_text_notebook(path: Path, shown: str) -> bool:
    """Is the page one to execute? Errors as `front_matter`."""
    return "kernelspec" in front_matter(path, shown)


def read_text_notebook(path: Path, shown: str) -> nbformat.NotebookNode:
    """The page as a notebook; its metadata hold under `source_map` the line where each cell begins.

    Raises:
        UserError: the page cannot be read or is no notebook, or the book's packages are not
            installed.
    """
    kernel = front_matter(path, shown).get("kernelspec")
    versions_of("myst-nb")
    from myst_nb.core.read import read_myst_markdown_notebook
    from myst_parser.config.main import MdParserConfig

    text = path.read_text(encoding="utf-8")
    config = MdParserConfig(enable_extensions=_BLOCKS)
    try:
        notebook = read_myst_markdown_notebook(text, config, add_source_map=True, path=path)
    except Exception as error:  # the reader has several errors of its own, without a common class
        reason = str(error).partition("\n")[0]
        raise UserError(f"{shown}: not a readable text notebook: {reason}") from error
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": kernel, SOURCE_MAP: notebook.metadata[SOURCE_MAP]}
    )
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"  # the same at every reading
    return notebook

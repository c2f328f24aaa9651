"""Text notebooks: pages in MyST Markdown with code cells.

A `kernelspec` in the front matter of a page marks it as one.
"""

import re
from pathlib import Path
from typing import Any

import nbformat
import yaml

from ..errors import UserError
from .installed import versions_of

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$", re.DOTALL | re.MULTILINE)
# The extensions whose blocks occur in the pages: what looks like a cell inside one is not a cell.
_BLOCKS = {"amsmath", "colon_fence", "dollarmath"}
SOURCE_MAP = "source_map"  # key in the notebook's metadata: the line where each cell begins


def front_matter(path: Path, shown: str) -> dict[str, Any]:
    """The front matter of a page; empty if it has none.

    Args:
        path: the page.
        shown: name of the page in messages.

    Raises:
        UserError: the page cannot be read, or its front matter is no mapping in YAML.
    """
    try:
        match = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
        if match is None:
            return {}
        content = yaml.safe_load(match[1])
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{shown}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict | None):
        raise UserError(
            f"{shown}: the front matter must be a mapping, e.g. `kernelspec: {{name: python3}}`"
        )
    return content or {}


def is_text_notebook(path: Path, shown: str) -> bool:
    """Whether the page is one to execute.

    Args:
        path: the page.
        shown: name of the page in messages.

    Raises:
        UserError: as for `front_matter`.
    """
    return "kernelspec" in front_matter(path, shown)


def read_text_notebook(path: Path, shown: str) -> nbformat.NotebookNode:
    """A page as a notebook, with the line where each cell begins in its metadata (`SOURCE_MAP`).

    Args:
        path: the page.
        shown: name of the page in messages.

    Raises:
        UserError: the page cannot be read or is no notebook, or the packages of the `book` extra
            are not installed.
    """
    kernel = front_matter(path, shown).get("kernelspec")
    versions_of("myst-nb")
    from myst_nb.core.read import read_myst_markdown_notebook
    from myst_parser.config.main import MdParserConfig

    text = path.read_text(encoding="utf-8")
    config = MdParserConfig(enable_extensions=_BLOCKS)
    try:
        notebook = read_myst_markdown_notebook(text, config, add_source_map=True, path=path)
    except Exception as error:  # the reader raises several errors that have no common class
        reason = str(error).partition("\n")[0]
        raise UserError(f"{shown}: not a readable text notebook: {reason}") from error
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": kernel, SOURCE_MAP: notebook.metadata[SOURCE_MAP]}
    )
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"  # the reader gives random ids; these are always the same
    return notebook

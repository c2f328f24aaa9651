"""Open a paper's notebook elsewhere, in Colab or on Binder: the links, and the copies that Colab
opens.

Binder installs what `.binder/` says before it opens a notebook of the repository. Colab installs
nothing and opens notebooks of repositories only, so the publishing workflow keeps copies that begin
with an installation on a branch of their own, `COLAB_BRANCH`; notebooks of the main branch stay
free of it.
"""

import copy
import re
from urllib.parse import quote, urljoin

import nbformat

from ..catalog import Address, Paper
from ..catalog.reader import read_notebook, tags_of

COLAB_BRANCH = "colab"
# a link to a page of the book, as notebooks write it: `](../concepts/types.md#type-other)`
_PAGE = re.compile(r"(?P<start>\]\(<?)(?!//)(?P<name>[^()<>\s#:]+)\.(?:md|ipynb)(?=[#>)\s])")
# What Colab has installed stays: its torch is built for its driver, its numpy is already loaded.
_INSTALL = """\
# Record, results and the latest version: {page}{state}
from importlib.metadata import version
from pathlib import Path

Path("kept.txt").write_text("".join(f"{{name}}=={{version(name)}}\\n" for name in ("numpy", "torch")))
%pip install --quiet -c kept.txt "prunebook @ git+{repository}@{branch}" matplotlib
%pip install --quiet --no-deps -r {repository}/raw/{branch}/requirements/embedded.txt
"""
_NOT_RUN = "\n# This paper has no implementation here yet: the library is for trying the methods of the others."


def buttons(slug: str, address: Address) -> str:
    """Links that open a paper's notebook, as Markdown; nothing is loaded for them."""
    colab = f"https://colab.research.google.com/github/{address.project}/blob/{COLAB_BRANCH}/{slug}.ipynb"
    path = quote(f"lab/tree/papers/{slug}.ipynb", safe="")
    binder = f"https://mybinder.org/v2/gh/{address.project}/{quote(address.branch, safe='')}?urlpath={path}"
    return f"[Open in Colab](<{colab}>) · [Open on Binder](<{binder}>)"


def colab_notebook(paper: Paper, address: Address) -> nbformat.NotebookNode:
    """The paper's notebook as Colab opens it: an installation in place of the record, links that
    lead to the site.

    Raises:
        UserError: the notebook cannot be read.
    """
    notebook = copy.deepcopy(read_notebook(paper.path))
    page = f"papers/{paper.slug}.html"
    cells = [cell for cell in notebook.cells if "record" not in tags_of(cell)]
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _PAGE.sub(
                lambda link: f"{link['start']}{_on_site(address, page, link['name'])}", cell.source
            )
    source = _INSTALL.format(
        page=address.site + page,
        state="" if paper.record.method else _NOT_RUN,
        repository=address.repository,
        branch=address.branch,
    )
    install = nbformat.v4.new_code_cell(
        source.rstrip(), metadata={"tags": ["install"]}, id="install"
    )
    notebook.cells = [cells[0], install, *cells[1:]]
    return notebook


def _on_site(address: Address, page: str, name: str) -> str:
    """The address of the page that a link on `page` calls `name`; with a slash in front it starts
    at the book."""
    return urljoin(
        address.site + ("" if name.startswith("/") else page), f"{name.lstrip('/')}.html"
    )

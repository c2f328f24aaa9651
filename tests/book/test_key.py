"""What does and what does not make a notebook run again, on a small library of the real one's shape."""

import subprocess
import sys

import nbformat
import pytest

from prunebook.book.key import PACKAGE, Library, rerun_key

FILES = {
    "__init__.py": 'EXPORTS = {"prune": "methods", "claim": "claims", "lazy": "lazy"}\n',
    "errors.py": "class UserError(ValueError): ...\n",
    "patterns.py": "from .errors import UserError\n",
    "claims.py": "import math\n",
    "lazy.py": "def f():\n    from prunebook.deep import inner\n",
    "unused.py": "x = 1\n",
    "deep/__init__.py": "from . import helper\n",
    "deep/inner.py": "import prunebook.patterns\n",
    "deep/helper.py": "",
    "methods/__init__.py": "from .engine import prune\n"
    'REGISTRY = {\n    "magnitude": ("magnitude", "Magnitude"),\n    "wanda": ("wanda", "Wanda"),\n'
    '    "sparsegpt": ("sparsegpt", "SparseGPT"),\n}\n',
    "methods/engine.py": "from ..errors import UserError\n",
    "methods/magnitude.py": "from ..patterns import select\n",
    "methods/wanda.py": "from .. import patterns\nfrom .magnitude import helper\n",
    "methods/sparsegpt.py": "",
}
BASE = {"prunebook", "prunebook.methods", "prunebook.methods.engine", "prunebook.errors"}
WANDA = BASE | {"prunebook.methods.wanda", "prunebook.methods.magnitude", "prunebook.patterns"}


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "prunebook"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def notebook(*code, note="text"):
    v4 = nbformat.v4
    cells = [v4.new_raw_cell("paper:"), v4.new_markdown_cell(note), *map(v4.new_code_cell, code)]
    return v4.new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("import prunebook as pb\npb.claim('wanda2')", {"prunebook", "prunebook.claims"}),
        ("import prunebook as pb\npb.prune(m, 0.5)", BASE),
        ("import prunebook as pb\npb.prune(m, 'wanda')", WANDA),
        ("import prunebook as pb\npb.show_it(pb.methods.Wanda(sparsity=0.5))", WANDA),
        ("import prunebook\nprunebook.methods.wanda.Wanda", WANDA),
        ("from prunebook.methods import Wanda as W", WANDA),
        ("from prunebook import methods as m\nm.Wanda()", WANDA),
        ("import prunebook.methods.wanda as w", WANDA),
        ("from prunebook import methods", BASE),
        ("from prunebook import claim", {"prunebook", "prunebook.claims"}),
        ("import prunebook.unused", {"prunebook", "prunebook.unused"}),
        (
            "import prunebook as pb\npb.lazy()",
            {
                "prunebook", "prunebook.lazy", "prunebook.deep", "prunebook.deep.inner",
                "prunebook.deep.helper", "prunebook.patterns", "prunebook.errors",
            },
        ),
        ("import numpy as pb\npb.claim", set()),
    ],
)  # fmt: skip
def test_reach(package, code, reached):
    assert Library(package).reach([code], {}) == reached


def test_a_method_among_the_parameters_is_reached(package):
    assert Library(package).reach(["import prunebook as pb\npb.prune(m, name)"], {"names": ["wanda"]}) == WANDA


def test_what_is_no_python_reaches_everything(package):
    library = Library(package)
    assert library.reach(["%matplotlib inline"], {}) == set(library.files)


CODE = "import prunebook as pb\npb.prune(m, 'wanda')"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("methods/wanda.py", True),
        ("patterns.py", True),
        ("errors.py", True),
        ("methods/magnitude.py", True),
        ("methods/__init__.py", True),
        ("methods/sparsegpt.py", False),
        ("claims.py", False),
        ("deep/inner.py", False),
    ],
)
def test_editing_a_module(package, file, changes):
    before = rerun_key(notebook(CODE), {}, package)
    with open(package / file, "a") as module:
        module.write("# edited\n")
    assert (rerun_key(notebook(CODE), {}, package) != before) is changes


def test_a_new_method_or_export_changes_nothing(package):
    before = rerun_key(notebook(CODE), {}, package)
    (package / "methods/owl.py").write_text("")
    for file, old, new in (
        ("methods/__init__.py", "REGISTRY = {\n", 'REGISTRY = {\n    "owl": ("owl", "OWL"),\n'),
        ("__init__.py", "{", '{"owl": "owl", '),
    ):
        (package / file).write_text((package / file).read_text().replace(old, new))
    assert "owl" in Library(package).methods
    assert rerun_key(notebook(CODE), {}, package) == before


def test_parameters_cells_and_versions_count(package, monkeypatch):
    keys = [
        rerun_key(notebook(CODE), {}, package),
        rerun_key(notebook(CODE), {"samples": 16}, package),
        rerun_key(notebook(CODE + "\n1"), {}, package),
        rerun_key(notebook(CODE, note="other"), {}, package),
    ]
    monkeypatch.setattr("prunebook.book.key.pinned_versions", lambda: {"torch": "0"})
    keys.append(rerun_key(notebook(CODE), {}, package))
    assert len(set(keys)) == 5


def test_the_records_that_a_cell_names_count(tmp_path):
    package = tmp_path / "lib" / "prunebook"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    naming = notebook("records('kernels-*.json')\nread(folder / 'scaling.json')\nprint('no record')")
    keys = {rerun_key(naming, {}, package)}
    for name, text, changes in (
        ("kernels-a.json", "1", True), ("kernels-b.json", "1", True), ("kernels-b.json", "2", True),
        ("scaling.json", "1", True), ("other.json", "1", False),
    ):  # fmt: skip
        (folder / name).write_text(text)
        key = rerun_key(naming, {}, package)
        assert (key not in keys) is changes, name
        keys.add(key)
    assert rerun_key(notebook("%magic 'kernels-a.json'"), {}, package)


def test_outputs_identifiers_and_the_record_do_not_count(package):
    changed = notebook(CODE)
    changed.cells[0].source = "paper: {}"
    for cell in changed.cells:
        cell.id = f"x{cell.id}"
        cell.metadata["papermill"] = {"duration": 1}
    changed.cells[2].outputs = [nbformat.v4.new_output("stream", text="hello")]
    changed.cells[2].execution_count = 7
    assert rerun_key(changed, {}, package) == rerun_key(notebook(CODE), {}, package)


def test_the_library_itself():
    library = Library(PACKAGE)
    assert library.methods["wanda"] == "prunebook.methods.wanda"
    reached = library.reach(["import prunebook as pb\npb.claim('x')"], {})
    assert reached == {"prunebook", "prunebook.claims", "prunebook.errors", "prunebook.render"}
    reached = library.reach(["import prunebook as pb\npb.prune(model, pb.methods.Wanda())"], {})
    assert {"prunebook.methods.wanda", "prunebook.patterns", "prunebook.blocks"} <= reached
    assert not {"prunebook.methods.sparsegpt", "prunebook.cli", "prunebook.book.key"} & reached


def test_the_book_needs_no_torch():
    code = (
        "import sys, prunebook.claims, prunebook.show\n"
        "from prunebook.book import assemble, build, key, run, serve\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

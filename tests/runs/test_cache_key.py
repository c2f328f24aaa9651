"""What does and what does not make a notebook run again, on a small library of the real one's
shape."""

import subprocess
import sys

import nbformat
import pytest

from prunebook.catalog.source_graph import source_graph
from prunebook.runs.cache_key import rerun_key


def notebook(*code, note="text"):
    v4 = nbformat.v4
    cells = [v4.new_raw_cell("paper:"), v4.new_markdown_cell(note), *map(v4.new_code_cell, code)]
    return v4.new_notebook(cells=cells)


CODE = "import prunebook as pb\npb.prune(m, 'wanda')"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("methods/wanda.py", True),
        ("sparsity/patterns.py", True),
        ("errors.py", True),
        ("methods/essential_sparsity.py", True),
        ("methods/__init__.py", True),
        ("methods/sparsegpt.py", False),
        ("notebook/claims.py", False),
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
        ("methods/registry.py", "REGISTRY = {\n", 'REGISTRY = {\n    "owl": ("owl", "OWL"),\n'),
        ("__init__.py", "{", '{"owl": "methods.owl", '),
    ):
        (package / file).write_text((package / file).read_text().replace(old, new))
    assert "owl" in source_graph(package).methods
    assert rerun_key(notebook(CODE), {}, package) == before


def test_parameters_cells_and_versions_count(package, monkeypatch):
    keys = [
        rerun_key(notebook(CODE), {}, package),
        rerun_key(notebook(CODE), {"samples": 16}, package),
        rerun_key(notebook(CODE + "\n1"), {}, package),
        rerun_key(notebook(CODE, note="other"), {}, package),
    ]
    monkeypatch.setattr("prunebook.runs.cache_key.pinned_versions", lambda: {"torch": "0"})
    keys.append(rerun_key(notebook(CODE), {}, package))
    assert len(set(keys)) == 5


def test_the_records_that_a_cell_names_count(tmp_path):
    package = tmp_path / "lib" / "prunebook"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    naming = notebook(
        "records('kernels-*.json')\nread(folder / 'scaling.json')\nprint('no record')"
    )
    keys = {rerun_key(naming, {}, package)}
    for name, text, changes in (
        ("kernels-a.json", "1", True),
        ("kernels-b.json", "1", True),
        ("kernels-b.json", "2", True),
        ("scaling.json", "1", True),
        ("other.json", "1", False),
    ):
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


def test_the_book_needs_no_torch():
    code = (
        "import sys, prunebook.notebook.claims, prunebook.notebook.source\n"
        "from prunebook.runs import cache_key, run\n"
        "from prunebook.site import assemble, build, serve\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_claims_of_the_record_count_and_its_other_fields_do_not(package):
    def key(front: str) -> str:
        content = notebook(CODE)
        content.cells[0].source = front
        return rerun_key(content, {}, package)

    without = key("paper:\n  title: x")
    assert key("paper:\n  title: y") == without
    stated = key("paper:\n  claims: [{key: a, number: '1'}]")
    assert stated != without
    assert key("paper:\n  claims: [{key: a, number: '2'}]") != stated

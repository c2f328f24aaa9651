"""What the tests of runs share: a small book, and workers with what a notebook of one cell does."""

import os

import nbformat
import pytest
from tests.small_book import book  # noqa: F401 - a fixture of all tests here

from prunebook.runs.worker_handle import Workers


@pytest.fixture
def run(tmp_path):
    """`run(workers, code)`: the end of a notebook of one cell, and what the cell printed."""

    def execute(workers, code, name="page"):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        (tmp_path / f"{name}.ipynb").write_text(nbformat.writes(notebook))
        job = {
            "input": str(tmp_path / f"{name}.ipynb"),
            "output": str(tmp_path / f"{name}.out.ipynb"),
            "parameters": {},
            "cwd": str(tmp_path),
            "log": str(tmp_path / f"{name}.log"),
        }
        cells = []
        ended = workers.execute(job, cells.append)
        outputs = []
        if (tmp_path / f"{name}.out.ipynb").exists():
            done = nbformat.read(tmp_path / f"{name}.out.ipynb", 4)
            outputs = [o.get("text", "") for c in done.cells for o in c.get("outputs", [])]
        return ended, "".join(outputs), cells

    return execute


def new_workers(folder):
    """Workers that have one module of two that they are to import; their log is in `folder`."""
    return Workers(lambda: ["colorsys", "no_such_module"], [], os.environ, folder / "worker.log")


@pytest.fixture
def workers(tmp_path):
    """Workers of the test's own, which it may end or replace."""
    made = new_workers(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def shared_workers(tmp_path_factory):
    """Workers that no test ends: the start of each takes seconds."""
    made = new_workers(tmp_path_factory.mktemp("workers"))
    yield made
    made.close()

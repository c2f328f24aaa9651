"""Running notebooks that need no torch: what runs, what does not, what is left behind and said."""

import json
import subprocess
import sys

import nbformat
import pytest
import yaml
from tests.runs.reading import outputs, statuses

from prunebook.errors import UserError
from prunebook.runs.machine import usable_cores
from prunebook.runs.run import _models_of, automatic_jobs, run_notebooks


def test_run_skip_force_and_failure(book, capsys):
    """One scenario, because each start of a kernel takes a second."""
    book.add(
        "alpha",
        "import os, sys\nprint(model_name, samples, sys.executable, os.path.basename(os.getcwd()))",
    )
    book.add(
        "beta", "print(samples, os.environ['OMP_NUM_THREADS'])".replace("os.", "__import__('os').")
    )
    book.add("broken", "print('before')", "# the cell that fails\nraise KeyError('no\\nway')")
    book.add("later", "print('never')", method=None)
    summary = run_notebooks(book.root, jobs=3)
    assert statuses(summary) == {
        "alpha": "ran",
        "beta": "ran",
        "broken": "failed",
        "later": "not run yet",
    }
    assert outputs(book, "alpha").split() == ["quick-model", "2", sys.executable, "papers"]
    assert outputs(book, "beta").split() == ["5", str(max(1, usable_cores() // 3))]

    (failed,) = summary.failed
    where = (failed.failure.where, failed.failure.line)
    assert where == ("cell 5", r"raise KeyError('no\nway')")
    assert failed.failure.error == "KeyError"
    assert failed.failure.message == repr("no\nway")
    text = str(summary)
    assert "rerun: prunebook run broken --profile quick" in text
    assert r"cell 5: raise KeyError('no\nway')" in text
    assert text in capsys.readouterr().out
    folder = book.root / "_build" / "executed" / "quick"
    assert "before" in (folder / "broken.failed.ipynb").read_text()
    assert not (folder / "broken.ipynb").exists()
    assert not list(folder.glob(".*.ipynb"))

    book.add("broken", "print('mended')")
    second = run_notebooks(book.root)
    assert statuses(second) == {
        "alpha": "up to date",
        "beta": "up to date",
        "broken": "ran",
        "later": "not run yet",
    }
    assert not (folder / "broken.failed.ipynb").exists()
    assert statuses(run_notebooks(book.root, ["alpha"], force=True)) == {"alpha": "ran"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["alpha", "gamma"]}, "unknown notebook 'gamma'; allowed: alpha"),
        ({"profile": "tiny"}, "unknown profile 'tiny'; allowed: quick, full"),
        ({"jobs": 0}, "jobs must be 1 or more, not 0"),
    ],
)
def test_bad_arguments(book, arguments, message):
    book.add("alpha", "1")
    with pytest.raises(UserError, match=message):
        run_notebooks(book.root, **arguments)


def test_the_kernel_knows_its_profile(book):
    book.add("alpha", "import os\nprint(os.environ['PRUNEBOOK_PROFILE'])")
    run_notebooks(book.root, profile="full")
    assert outputs(book, "alpha", "full") == "full\n"


def test_the_kernel_knows_the_claims_of_its_record(book):
    book.add("alpha", "import os\nprint(os.environ['PRUNEBOOK_CLAIMS'])")
    run_notebooks(book.root, profile="full")
    assert outputs(book, "alpha", "full") == "\n"
    claim = {"key": "a", "origin": "ours", "statement": "b", "number": "1", "source": "none"}
    path = book.root / "papers" / "alpha.ipynb"
    content = nbformat.read(path, as_version=4)
    front = yaml.safe_load(content.cells[0].source.strip("-\n"))
    front["paper"]["claims"] = [claim]
    content.cells[0].source = yaml.safe_dump(front)
    nbformat.write(content, path)
    run_notebooks(book.root, profile="full")
    assert json.loads(outputs(book, "alpha", "full")) == {"claims": [claim]}


@pytest.mark.parametrize(
    ("profile", "cores", "memory", "gpu", "jobs"),
    [
        ("quick", 2, 24, False, 2),
        ("quick", 2, 8, False, 1),
        ("quick", 1, 24, False, 1),
        ("quick", 16, 128, False, 4),
        ("quick", 2, 2, False, 1),
        ("quick", 2, 24, True, 1),
        ("book", 2, 24, False, 1),
    ],
)
def test_how_many_run_at_once(profile, cores, memory, gpu, jobs, monkeypatch, tmp_path):
    monkeypatch.setattr("prunebook.runs.run.usable_cores", lambda: cores)
    monkeypatch.setattr("prunebook.runs.run.usable_memory", lambda: memory * 2**30)
    monkeypatch.setattr("prunebook.runs.run._NVIDIA", str(tmp_path if gpu else tmp_path / "none"))
    assert automatic_jobs(profile) == jobs


def test_the_models_of_pages_are_what_parameters_name():
    pages = [
        {"model_name": "smollm2-135m", "samples": 3},
        {"decoder_name": "an-organisation/a-model", "model_name": "smollm2-135m"},
        {"samples": 3},
    ]
    assert _models_of(pages) == ["an-organisation/a-model", "smollm2-135m"]


def test_modules_of_the_book_need_no_extra():
    """Only the run or the build itself may ask for the `book` extra."""
    code = (
        "import sys\n"
        "extra = ('IPython', 'ipykernel', 'jupyter_client', 'matplotlib', 'myst_nb', "
        "'papermill', 'sphinx',"
        " 'sphinx_external_toc')\n"
        "sys.modules.update(dict.fromkeys(extra))\n"
        "import prunebook.cli.main\n"
        "from prunebook.runs import run\n"
        "from prunebook.site import build, serve\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Running notebooks that need no torch: what runs, what does not, what is left behind and said."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import nbformat
import pytest

from prunebook.catalog.source_graph import PACKAGE
from prunebook.errors import UserError
from prunebook.runs.executed import best_execution, read_execution
from prunebook.runs.machine import usable_cores
from prunebook.runs.notebooks import read_runnables
from prunebook.runs.profiles import parameters_of
from prunebook.runs.run import _models_of, automatic_jobs, run_notebooks
from prunebook.runs.worker import FORKS
from prunebook.site.build import build_site


def outputs(book, slug, profile="quick"):
    """The text that the executed notebook printed."""
    path = book.root / "_build" / "executed" / profile / f"{slug}.ipynb"
    cells = nbformat.read(path, 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def statuses(summary):
    return {outcome.name: outcome.status for outcome in summary.outcomes}


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
    assert (failed.failure.where, failed.failure.line) == ("cell 5", "# the cell that fails")
    assert failed.failure.error == "KeyError"
    assert failed.failure.message == repr("no\nway")
    text = str(summary)
    assert "rerun: prunebook run broken --profile quick" in text
    assert "cell 5: # the cell that fails" in text
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


def test_a_profile_of_its_own_and_the_one_to_publish(book):
    book.add("alpha", "print(model_name)")
    run_notebooks(book.root, ["alpha"], profile="quick")
    run_notebooks(book.root, ["alpha"], profile="full")
    assert outputs(book, "alpha", "full") == "full-model\n"
    (alpha,) = read_runnables(book.root)
    execution, current = best_execution(book.root, alpha)
    assert (execution.profile, current) == ("full", True)
    assert execution.parameters == {"model_name": "full-model"}
    profiles = book.root / "papers" / "profiles.yml"
    profiles.write_text(profiles.read_text().replace("full-model", "other"))
    execution, current = best_execution(book.root, alpha)
    assert (execution.profile, current) == ("quick", True)
    book.add("alpha", "print('changed')")
    execution, current = best_execution(book.root, alpha)
    assert (execution.profile, current) == ("full", False)


def test_a_dead_kernel_is_a_failure(book):
    book.add("alpha", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    (outcome,) = run_notebooks(book.root).outcomes
    assert outcome.failure.error == "DeadKernelError"
    assert outcome.failure.where == "cell 4"


def test_a_killed_run_leaves_nothing_under_the_final_name_and_no_process(book):
    marker = book.root / "pid"
    book.add(
        "alpha",
        f"import os, time\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)",
    )
    # A test run in the background hands an ignored SIGINT on to its children.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"from prunebook.runs.run import run_notebooks as r\nr({str(book.root)!r})"
    run = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    kernel = _wait_for(lambda: marker.exists() and marker.read_text())
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=20) != 0
    _wait_for(lambda: _gone(int(kernel)))
    folder = book.root / "_build" / "executed" / "quick"
    assert not (folder / "alpha.ipynb").exists()
    assert not (folder / "alpha.key").exists()


def _wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)
    return value


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_two_runs_at_once_do_the_work_once(book):
    count = book.root / "count"
    book.add("alpha", f"import time\ntime.sleep(1)\nopen({str(count)!r}, 'a').write('x')")
    code = f"from prunebook.runs.run import run_notebooks as r\nprint(r({str(book.root)!r}))"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    texts = [run.communicate(timeout=60)[0] for run in runs]
    assert count.read_text() == "x"
    assert sorted("up to date" in text for text in texts) == [False, True]


def test_a_waiting_lock_is_taken_over(book):
    """A lock file left by a killed run does not block."""
    book.add("alpha", "1")
    folder = book.root / "_build" / "executed" / "quick"
    folder.mkdir(parents=True)
    filelock.FileLock(folder / ".alpha.lock").acquire().lock.release()
    assert statuses(run_notebooks(book.root)) == {"alpha": "ran"}


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quick: [", "cannot be read"),
        ("[]", "needs a mapping of profile"),
        ("quick: {alpha: {}}", "profile 'quick' needs a mapping 'default'"),
        ("quick: {default: 3}", "quick.default must be a mapping"),
        ("quick: {default: {day: 2024-01-01}}", "quick.default.day must be a text"),
    ],
)
def test_bad_profiles(book, text, message):
    (book.root / "papers" / "profiles.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        parameters_of(book.root, "quick", "alpha", {"samples"})


def test_parameters_of_a_slug_override(book):
    both = {"model_name", "samples"}
    assert parameters_of(book.root, "quick", "beta", both) == {
        "model_name": "quick-model",
        "samples": 5,
    }
    assert parameters_of(book.root, "quick", "alpha", both) == {
        "model_name": "quick-model",
        "samples": 2,
    }
    assert parameters_of(book.root, "quick", "alpha", {"samples", "other"}) == {"samples": 2}
    with pytest.raises(
        UserError,
        match=r"quick\.beta\.samples is no parameter of the notebook; allowed: model_name",
    ):
        parameters_of(book.root, "quick", "beta", {"model_name"})


def test_an_unreadable_key_counts_as_not_executed(book, capsys):
    book.add("alpha", "1")
    (alpha,) = read_runnables(book.root)
    folder = book.root / "_build" / "executed" / "quick"
    folder.mkdir(parents=True)
    (folder / "alpha.ipynb").write_text("{}")
    assert read_execution(book.root, "quick", "alpha") is None
    assert capsys.readouterr().err == ""
    for content in (b"{", b"\xff", b"[]", json.dumps({"key": "x"}).encode()):
        (folder / "alpha.key").write_bytes(content)
        assert read_execution(book.root, "quick", "alpha") is None
        message = f"prunebook: {folder}/alpha.key: not readable, so alpha counts as not executed\n"
        assert capsys.readouterr().err == message
    assert best_execution(book.root, alpha) is None
    assert statuses(run_notebooks(book.root, force=True)) == {"alpha": "ran"}
    assert best_execution(book.root, alpha)[1]


def test_a_process_that_ends_without_a_word(book, monkeypatch):
    """Papermill's stand-in ends the process that imports it: the worker, or else the notebook's
    own."""
    book.add("alpha", "1")
    environment = {**os.environ, "PYTHONPATH": str(book.root / "shadow")}
    (book.root / "shadow").mkdir()
    (book.root / "shadow" / "papermill.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setattr("prunebook.runs.run._environment", lambda jobs, profile: environment)
    summary = run_notebooks(book.root)
    (failure,) = [outcome.failure for outcome in summary.failed]
    assert (failure.where, failure.error) == ("", "ProcessEnded")
    text = str(summary)
    said = "the worker ended, and the notebook's process with it; see worker.log"
    assert (said if FORKS else "ended with exit code 3; see the log") in text
    assert "cell" not in text


def test_the_kernel_knows_its_profile(book):
    book.add("alpha", "import os\nprint(os.environ['PRUNEBOOK_PROFILE'])")
    run_notebooks(book.root, profile="full")
    assert outputs(book, "alpha", "full") == "full\n"


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


def test_only_embedded_models_are_prepared():
    pages = [
        {"model_name": "an-organisation/a-model"},
        {"decoder_name": "smollm2-135m"},
        {"samples": 3},
    ]
    assert _models_of(pages) == ["smollm2-135m"]


def test_after_a_failure_nothing_more_starts_if_so_asked(book):
    book.add("alpha", "raise KeyError('no')", year=2026)
    book.add("beta", "1", year=2025)
    assert statuses(run_notebooks(book.root, jobs=1, fail_fast=True)) == {
        "alpha": "failed",
        "beta": "not started",
    }
    assert statuses(run_notebooks(book.root)) == {"alpha": "failed", "beta": "ran"}


def test_only_pages_that_changes_since_a_revision_reach(book):
    book.add("alpha", "import prunebook.errors", year=2026)
    book.add("beta", "1", year=2025)
    (book.root / "lib").symlink_to(PACKAGE.parent)
    with pytest.raises(UserError, match=r"git says: .*; give a revision of"):
        run_notebooks(book.root, since="HEAD")
    (book.root / "lib").unlink()
    shutil.copytree(
        PACKAGE, book.root / "lib" / "prunebook", ignore=shutil.ignore_patterns("__pycache__")
    )
    git = ["git", "-C", str(book.root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    assert statuses(run_notebooks(book.root, since="HEAD")) == {
        "alpha": "as in HEAD",
        "beta": "as in HEAD",
    }
    book.add("beta", "2", year=2025)
    assert statuses(run_notebooks(book.root, since="HEAD")) == {
        "alpha": "as in HEAD",
        "beta": "ran",
    }
    subprocess.run([*git, "commit", "-qam", "second"], check=True)
    errors = book.root / "lib" / "prunebook" / "errors.py"
    errors.write_text(errors.read_text() + "# changed\n")
    subprocess.run([*git, "commit", "-qam", "third"], check=True)
    # The library that runs is the first one; at HEAD it is another, which only alpha reaches.
    assert statuses(run_notebooks(book.root, since="HEAD")) == {
        "alpha": "ran",
        "beta": "as in HEAD",
    }
    with pytest.raises(UserError, match=r"git says: .*no-such.*; give a revision of"):
        run_notebooks(book.root, since="no-such")


def test_a_missing_extra_is_named(book, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    for use in (run_notebooks, build_site):
        with pytest.raises(UserError, match=r"^\S+ is not installed; install prunebook\[book\]$"):
            use(book.root)


def test_modules_of_the_book_need_no_extra():
    """Only the run or the build itself may ask for the `book` extra."""
    code = (
        "import sys\n"
        "extra = ('IPython', 'ipykernel', 'jupyter_client', 'matplotlib', 'myst_nb', "
        "'papermill', 'sphinx',"
        " 'sphinx_external_toc')\n"
        "sys.modules.update(dict.fromkeys(extra))\n"
        "import prunebook.cli\n"
        "from prunebook.runs import run\n"
        "from prunebook.site import build, serve\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Locks, dead processes and interruptions: what a run does then, and what it leaves."""

import os
import signal
import subprocess
import sys

import filelock
from tests.runs.reading import is_gone, statuses, wait_for

from prunebook.runs.run import run_notebooks
from prunebook.runs.worker import FORKS


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
    kernel = wait_for(lambda: marker.exists() and marker.read_text())
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=20) != 0
    wait_for(lambda: is_gone(int(kernel)))
    folder = book.root / "_build" / "executed" / "quick"
    assert not (folder / "alpha.ipynb").exists()
    assert not (folder / "alpha.key").exists()


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


def test_after_a_failure_nothing_more_starts_if_so_asked(book):
    book.add("alpha", "raise KeyError('no')", year=2026)
    book.add("beta", "1", year=2025)
    assert statuses(run_notebooks(book.root, jobs=1, fail_fast=True)) == {
        "alpha": "failed",
        "beta": "not started",
    }
    assert statuses(run_notebooks(book.root)) == {"alpha": "failed", "beta": "ran"}

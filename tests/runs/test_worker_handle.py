"""The worker on notebooks without torch: what it preloads, that it is replaced, what it leaves."""

import os
import signal
import threading

import nbformat
import pytest

from prunebook.runs.worker import FORKS
from prunebook.runs.worker_handle import Workers

needs_fork = pytest.mark.skipif(not FORKS, reason="notebooks are forked on Linux alone")


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


@pytest.fixture
def workers(tmp_path):
    made = Workers(lambda: ["colorsys", "no_such_module"], [], os.environ, tmp_path / "worker.log")
    yield made
    made.close()


def test_a_job_reports_cells_memory_and_its_end(workers, run):
    ended, text, cells = run(workers, "import os\nprint(os.getcwd())")
    assert (ended.code, ended.failure) == (0, None)
    assert os.path.realpath(text.strip()) == os.path.realpath(os.path.dirname(workers._log))
    assert cells == [1]
    assert 0 < ended.seconds < 60
    if FORKS:
        assert 10 * 2**20 < ended.peak_memory < 4 * 2**30


@needs_fork
def test_modules_are_imported_before_the_fork_and_a_missing_one_is_told(workers, run, tmp_path):
    _, text, _ = run(workers, "import sys\nprint('colorsys' in sys.modules, 'wave' in sys.modules)")
    assert text == "True False\n"
    log = (tmp_path / "worker.log").read_text()
    assert log == (
        "no_such_module was not preloaded: ModuleNotFoundError: No module named 'no_such_module'\n"
    )


@needs_fork
def test_notebooks_of_one_worker_do_not_see_each_other(workers, run):
    _, first, _ = run(
        workers, "import builtins\nbuiltins.mark = 1\nprint(__import__('os').getppid())"
    )
    _, second, _ = run(workers, "import builtins\nprint(hasattr(builtins, 'mark'))")
    assert second == "False\n"
    assert int(first) != os.getpid()


def test_a_failing_cell_is_told_with_its_first_line(workers, run):
    ended, _, _ = run(workers, "# it fails\nraise ValueError('no\\nway')")
    assert ended.failure == {
        "cell": 0,
        "line": "# it fails",
        "error": "ValueError",
        "message": "no",
    }


def test_a_long_message_is_cut_so_that_its_report_stays_whole(workers, run):
    ended, _, _ = run(workers, "raise ValueError('\\U0001d54f' * 100_000)")
    assert ended.failure["message"] == "\U0001d54f" * 100


def test_a_worker_that_dies_ends_its_jobs_and_is_replaced(workers, run, tmp_path):
    run(workers, "1")
    (process,) = workers._processes
    marker = tmp_path / "pid"
    code = f"import os, time\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    ends = []
    thread = threading.Thread(target=lambda: ends.append(run(workers, code, "slow")[0]))
    thread.start()
    while not (marker.exists() and marker.read_text()):
        assert thread.is_alive()
    os.kill(process.popen.pid, signal.SIGKILL)
    thread.join(20)
    assert [(end.code, end.failure) for end in ends] == [(None, None)]
    if FORKS:
        assert _gone(int(marker.read_text()))
    ended, text, _ = run(workers, "print('again')")
    assert (ended.code, text) == (0, "again\n")


def test_another_library_gets_another_worker(workers, run, monkeypatch):
    run(workers, "1")
    monkeypatch.setattr("prunebook.runs.worker_handle.source_signature", lambda: "changed")
    assert run(workers, "print(1)")[1] == "1\n"
    first, second = workers._processes
    assert first.popen.poll() == 0
    assert second.popen.poll() is None


def test_closing_ends_the_worker(workers, run):
    run(workers, "1")
    (process,) = workers._processes
    workers.close()
    assert process.popen.poll() == 0


def _gone(pid: int) -> bool:
    """Has the process ended, within some seconds?"""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        threading.Event().wait(0.1)
    return False

"""The worker on notebooks without torch: what it preloads, that it is replaced, what it leaves."""

import os
import signal
import threading

import pytest

from prunebook.runs.worker import FORKS

needs_fork = pytest.mark.skipif(not FORKS, reason="notebooks are forked on Linux alone")


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

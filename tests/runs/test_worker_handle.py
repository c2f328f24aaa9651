"""The worker on notebooks without torch: what it preloads, that it is replaced, what it leaves."""

import os
import signal
import threading

import pytest
from tests.runs.reading import is_gone, wait_for

from prunebook.runs.worker import FORKS

needs_fork = pytest.mark.skipif(not FORKS, reason="notebooks are forked on Linux alone")


def test_a_job_reports_cells_memory_and_its_end(shared_workers, run, tmp_path):
    ended, text, cells = run(shared_workers, "import os\nprint(os.getcwd())")
    assert (ended.code, ended.failure) == (0, None)
    assert os.path.realpath(text.strip()) == os.path.realpath(tmp_path)
    assert cells == [1]
    assert 0 < ended.seconds < 60
    if FORKS:
        assert 10 * 2**20 < ended.peak_memory < 4 * 2**30


@needs_fork
def test_modules_are_imported_before_the_fork_and_a_missing_one_is_told(shared_workers, run):
    code = "import sys\nprint('colorsys' in sys.modules, 'wave' in sys.modules)"
    _, text, _ = run(shared_workers, code)
    assert text == "True False\n"
    assert set(shared_workers._log.read_text().splitlines()) == {
        "no_such_module was not preloaded: ModuleNotFoundError: No module named 'no_such_module'"
    }


@needs_fork
def test_notebooks_of_one_worker_do_not_see_each_other(shared_workers, run):
    _, first, _ = run(
        shared_workers, "import builtins\nbuiltins.mark = 1\nprint(__import__('os').getppid())"
    )
    _, second, _ = run(shared_workers, "import builtins\nprint(hasattr(builtins, 'mark'))")
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
    kernel = int(wait_for(lambda: marker.exists() and marker.read_text()))
    os.kill(process.popen.pid, signal.SIGKILL)
    thread.join(20)
    assert [(end.code, end.failure) for end in ends] == [(None, None)]
    if FORKS:
        wait_for(lambda: is_gone(kernel))
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

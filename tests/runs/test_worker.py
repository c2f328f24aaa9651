"""What the worker prepares before its first job."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from prunebook.runs import worker
from prunebook.runs.worker import FORKS

needs_fork = pytest.mark.skipif(not FORKS, reason="models are prepared where processes are forked")


@needs_fork
def test_only_embedded_models_are_prepared(tmp_path):
    """A module that only notes the names of its models stands in for the loading of models."""
    marker = tmp_path / "prepared"
    code = (
        "import pathlib, sys, types\n"
        "loading = types.ModuleType('prunebook.models.loading')\n"
        f"marker = pathlib.Path({str(marker)!r})\n"
        "marker.write_text('')\n"
        "loading.prepare_model = lambda name: marker.write_text(marker.read_text() + name)\n"
        "sys.modules['prunebook.models.loading'] = loading\n"
        "from prunebook.runs.worker import prepare\n"
        "prepare(['an-organisation/a-model', 'smollm2-135m'])\n"
    )
    subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, timeout=60, check=True)
    assert marker.read_text() == "smollm2-135m"


@needs_fork
def test_a_run_without_embedded_models_starts_without_torch():
    code = (
        "import sys\n"
        "from prunebook.runs.worker import prepare\n"
        "sys.modules['torch'] = None\n"  # importing it would fail
        "prepare(['an-organisation/a-model'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@needs_fork
def test_preparing_ends_with_the_input_of_the_worker():
    """A model's conversion that waits for another process's lock does not outlive the run."""
    reading, writing = os.pipe()
    standard_input = os.dup(0)
    os.dup2(reading, 0)
    try:
        waiting = os.fork()
        if waiting == 0:
            os.close(writing)
            signal.pause()
        threading.Timer(0.3, os.close, [writing]).start()
        worker._wait_while_there_is_input(waiting)
        with pytest.raises(ChildProcessError):  # it has been killed and waited for
            os.waitpid(waiting, 0)
    finally:
        os.dup2(standard_input, 0)
        os.close(reading)
        os.close(standard_input)

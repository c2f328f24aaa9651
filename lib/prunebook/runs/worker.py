"""The worker: a process that has imported what pages use, and forks a process for each notebook.

`python -m prunebook.runs.worker` reads JSON from standard input, one object a line:

- First come the modules to import and the models to convert, `{"preload": [...], "models": [...]}`.
- Then come jobs, `{"job": 3, "log": ..., ...}`, with the fields that `execute` takes.

It writes to standard output, one object a line:

- `{"job": 3, "started": true}` and `{"job": 3, "ended": exit code}` for each job;
- between them what the job's process reports, marked with the job's number.

When its input ends, the worker kills all that it has started and ends. Processes are forked on
Linux alone. Elsewhere nothing is imported or converted, and each notebook's process starts afresh.
"""

import gc
import importlib
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from ..catalog.source_graph import source_graph

FORKS = sys.platform == "linux"
# Module -> the modules that it imports only when it is used; they are imported in advance, too.
_IMPORTED_LATER = {
    "transformers": (
        "transformers.generation.utils",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.models.llama.modeling_llama",
    ),
}
_MACHINERY = ("papermill", "ipykernel.kernelapp")  # what executes every notebook


def preload(names: Iterable[str]) -> None:
    """Import modules, so that the processes that are forked later have them.

    A module that cannot be imported is named on standard error; the pages that use it will fail.

    Args:
        names: dotted names of the modules.
    """
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in (*names, *_MACHINERY):
        _preload_one(name)
    for name, later in _IMPORTED_LATER.items():
        if name in sys.modules:
            for module in later:
                _preload_one(module)
    # Cached measurements are found by the code that they reach. The sources are parsed once here,
    # for all pages.
    graph = source_graph()
    graph.reach_of(graph.files)
    gc.collect()
    # Without this a collection in a forked process would touch, and so copy, the shared memory.
    gc.freeze()


def _preload_one(name: str) -> None:
    """Import one module, or say on standard error why that fails."""
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name} was not preloaded: {type(error).__name__}: {error}", file=sys.stderr)


def prepare(models: Sequence[str]) -> None:
    """Convert embedded models into the user's cache.

    This is done in a process of its own, because a process that has computed with threads cannot
    fork afterwards. It ends early when the input ends. An error is shown on standard error; the
    pages that load the model will fail.

    Args:
        models: names or addresses of models; those that are not embedded are left out.
    """
    # Imported by name, because no module of this room may import torch. This one needs none, so a
    # run without embedded models is spared the seconds that importing it takes.
    known = importlib.import_module("prunebook.models.embedded").EMBEDDED
    embedded = [name for name in models if name in known]
    if not embedded:
        return
    pid = os.fork()
    if pid:
        _wait_while_there_is_input(pid)
        return
    try:
        from .forked_kernel import end_with_parent

        end_with_parent()
        loading = importlib.import_module("prunebook.models.loading")
        for name in embedded:
            loading.prepare_model(name)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _wait_while_there_is_input(pid: int) -> None:
    """Wait for the end of a process, and kill it if standard input ends before.

    Args:
        pid: the process, a child of this one.
    """
    hung_up = select.poll()
    hung_up.register(0, 0)  # an empty set of events: a hang-up is reported nevertheless
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if os.waitstatus_to_exitcode(status):
                print(
                    "a model could not be prepared; the pages that load it will say why",
                    file=sys.stderr,
                )
            return
        if hung_up.poll(200):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return


class _Worker:
    """The loop that reads jobs, starts their processes and reports their ends.

    Args:
        channel: descriptor to write reports to.
    """

    def __init__(self, channel: int):
        self._channel = channel
        self._jobs: dict[int, int] = {}  # process -> job
        self._processes: dict[int, subprocess.Popen] = {}  # the processes that were not forked
        # The signal of a child's end writes to this pipe, so the loop notices it.
        self._signals, writing_end = os.pipe()
        os.set_blocking(writing_end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing_end)

    def serve(self) -> None:
        """Take jobs until the input ends, then kill what still runs."""
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self._signals, selectors.EVENT_READ)
        buffer = b""  # the beginning of a line whose end has not come yet
        while True:
            for key, _ in selector.select():
                if key.fd == self._signals:
                    os.read(self._signals, 4096)
                    self._reap()
                    continue
                received = os.read(0, 65536)
                if not received:
                    self._kill_all()
                    return
                *lines, buffer = (buffer + received).split(b"\n")
                for line in lines:
                    self._start(json.loads(line))

    def _start(self, job: dict[str, Any]) -> None:
        """Start the process of a job and report that."""
        start = self._fork if FORKS else self._spawn
        self._jobs[start(job)] = job["job"]
        self._report({"job": job["job"], "started": True})

    def _fork(self, job: dict[str, Any]) -> int:
        """Fork a process that executes a job; returns its number."""
        pid = os.fork()
        if pid:
            return pid
        from .execute import channel_to, execute
        from .forked_kernel import end_with_parent

        code = 1
        try:
            os.setsid()
            end_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _write_to(job["log"])
            execute(job, channel_to(self._channel, job["job"]), fork=True)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _spawn(self, job: dict[str, Any]) -> int:
        """Start a new interpreter that executes a job; returns the number of its process."""
        command = [sys.executable, "-m", "prunebook.runs.execute"]
        with open(job["log"], "w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self._channel, stderr=errors, text=True
            )
        process.stdin.write(json.dumps(job))
        process.stdin.close()
        self._processes[process.pid] = process
        return process.pid

    def _reap(self) -> None:
        """Report the end of each process that has ended."""
        while self._jobs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid in self._jobs:
                code = os.waitstatus_to_exitcode(status)
                self._report({"job": self._jobs.pop(pid), "ended": code})

    def _report(self, fields: dict[str, Any]) -> None:
        """Write one object to the channel."""
        os.write(self._channel, (json.dumps(fields) + "\n").encode())

    def _kill_all(self) -> None:
        """Kill the processes of all jobs that still run."""
        for pid in self._jobs:
            os.kill(pid, signal.SIGKILL)


def _write_to(log: str) -> None:
    """Send what this process prints to the file `log`, and close its standard input."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # the worker alone reads the jobs that come in
    os.close(null)


def main() -> None:
    """Read what to prepare, do that, and serve jobs until the input ends."""
    channel = os.dup(1)
    os.dup2(2, 1)
    # An interruption goes to the run that started this worker, and that run ends the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The first line is read byte by byte: a longer read could take a part of the first job.
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    if FORKS:
        first = json.loads(line)
        preload(first["preload"])
        prepare(first["models"])
    _Worker(channel).serve()


if __name__ == "__main__":
    main()

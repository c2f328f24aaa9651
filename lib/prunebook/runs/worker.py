"""The worker: a process that has imported what pages use, and forks a process for each notebook.

`python -m prunebook.runs.worker` reads JSON from standard input, one object a line: first the names
of the modules to import and of the models to convert, `{"preload": [...], "models": [...]}`, which
is done where processes are forked; then jobs, `{"job": 3, "log": ..., ...}` (see `execute`). It
writes to standard output `{"job": 3, "started": true}`, what the jobs' processes report, each line
marked with its job, and `{"job": 3, "ended": exit code}`. It ends, and all it has started, when its
input ends.

Forking is done on Linux alone; elsewhere each notebook's process starts from nothing.
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
# what a package imports by itself only once it is used: module -> further modules
_USED_LATER = {
    "transformers": (
        "transformers.generation.utils",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.models.llama.modeling_llama",
    ),
}
_MACHINERY = ("papermill", "ipykernel.kernelapp")


def preload(names: Iterable[str]) -> None:
    """Import modules by name; one that cannot be imported is told, and left to the pages that use
    it."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in (*names, *_MACHINERY):
        _preload_one(name)
    for name, later in _USED_LATER.items():
        if name in sys.modules:
            for module in later:
                _preload_one(module)
    # parsed once for all pages, whose trials are told by the code they reach
    graph = source_graph()
    graph.reach_of(graph.files)
    gc.collect()
    gc.freeze()  # so that no collection in a forked process touches, and copies, these pages


def _preload_one(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name} was not preloaded: {type(error).__name__}: {error}", file=sys.stderr)


def prepare(models: Sequence[str]) -> None:
    """Convert embedded models into the user's cache, in a process of its own: what computes with
    threads cannot fork afterwards. What fails is told, and left to the pages that load the model.
    It ends early where the input ends."""
    if not models:
        return
    pid = os.fork()
    if pid:
        _wait_while_there_is_input(pid)
        return
    try:
        from .forked_kernel import end_with_parent

        end_with_parent()
        # By name: this room imports nothing that needs torch.
        loading = importlib.import_module("prunebook.models.loading")
        for name in models:
            if name in loading.EMBEDDED:
                loading.prepare_model(name)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _wait_while_there_is_input(pid: int) -> None:
    """Wait for the end of a process; kill it where the other end of standard input is closed before
    that."""
    hung_up = select.poll()
    hung_up.register(0, 0)  # no event is asked for: a hang-up is always told
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
    """Reads jobs, starts their processes and tells of their ends."""

    def __init__(self, channel: int):
        self._channel = channel
        self._jobs: dict[int, int] = {}  # process -> job
        self._processes: dict[int, subprocess.Popen] = {}  # those that were not forked
        # A signal of a child's end writes to this pipe, which wakes the loop.
        self._woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waking)

    def serve(self) -> None:
        """Take jobs until the input ends, then kill what still runs."""
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self._woken, selectors.EVENT_READ)
        buffer = b""
        while True:
            for key, _ in selector.select():
                if key.fd == self._woken:
                    os.read(self._woken, 4096)
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
        pid = self._fork(job) if FORKS else self._spawn(job)
        self._jobs[pid] = job["job"]
        self._tell({"job": job["job"], "started": True})

    def _fork(self, job: dict[str, Any]) -> int:
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
        """Tell the end of each process that has ended."""
        while self._jobs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid in self._jobs:
                self._tell({"job": self._jobs.pop(pid), "ended": os.waitstatus_to_exitcode(status)})

    def _tell(self, said: dict[str, Any]) -> None:
        os.write(self._channel, (json.dumps(said) + "\n").encode())

    def _kill_all(self) -> None:
        for pid in self._jobs:
            os.kill(pid, signal.SIGKILL)


def _write_to(log: str) -> None:
    """Let all that this process prints go to the file `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # the jobs that come in are not this process's to read
    os.close(null)


def main() -> None:
    channel = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run that started this tells it to end
    # The first line is read byte by byte, so that nothing of the jobs is taken with it.
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

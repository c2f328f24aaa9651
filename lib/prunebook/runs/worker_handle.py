"""The run's side of the worker: what starts it, sends it jobs, and replaces it when it has died."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog.source_graph import source_signature
from ..files import make_folder


@dataclass(frozen=True)
class Ended:
    """How the process of a notebook ended.

    Attributes:
        code: exit code, negative for a signal; None where the worker died first.
        failure: what the process reported of a failing cell; None for no failure.
        peak_memory: largest resident size of the kernel, in bytes; None where it is not known.
        seconds: wall time of the process; the start of a worker that forks is no part of it.
    """

    code: int | None
    failure: dict[str, Any] | None
    peak_memory: int | None
    seconds: float = 0.0


@dataclass
class _Process:
    """A running worker.

    Attributes:
        popen: the process.
        signature: signature of the library's sources when it was started.
        mailboxes: job -> queue of what is reported of it.
        over: True when the process has ended.
        retired: True when it gets no more jobs; it ends once it has none.
    """

    popen: subprocess.Popen
    signature: str
    mailboxes: dict[int, queue.Queue] = field(default_factory=dict)
    over: bool = False
    retired: bool = False

    def end(self) -> None:
        """Let the worker end, with all that it has started, and wait for that."""
        with contextlib.suppress(BrokenPipeError):  # it has died, so the rest cannot be sent
            self.popen.stdin.close()
        self.popen.wait()


class Workers:
    """The worker of a run, started at the first job.

    Another one replaces it when it has died or the library's sources have changed.

    Args:
        preload: function that gives the modules to import before the first job.
        models: names of models; the worker converts the embedded ones that the cache lacks.
        environment: environment of the worker and of all its kernels.
        log: file for what the worker itself prints.
    """

    def __init__(
        self,
        preload: Callable[[], Sequence[str]],
        models: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
    ):
        self._preload = preload
        self._models = list(models)
        self._environment = dict(environment)
        self._log = log
        self._lock = threading.Lock()
        self._processes: list[_Process] = []
        self._jobs = 0

    def execute(self, job: Mapping[str, Any], on_cell: Callable[[int], None]) -> Ended:
        """Run one job and wait for its end.

        Args:
            job: fields as `execute.execute` takes them, and `log`, the file for what it prints.
            on_cell: function that is called with the number of cells done, after each cell.
        """
        mailbox = self._send(job)
        failure = None
        peak_memory = None
        began = time.perf_counter()
        while (report := mailbox.get()) is not None:
            if "started" in report:
                began = time.perf_counter()
            if "cell" in report:
                on_cell(report["cell"])
            failure = report.get("failure", failure)
            peak_memory = report.get("peak_memory", peak_memory)
            if "ended" in report:
                return Ended(report["ended"], failure, peak_memory, time.perf_counter() - began)
        return Ended(None, failure, peak_memory, time.perf_counter() - began)

    def _send(self, job: Mapping[str, Any]) -> queue.Queue:
        """Send a job to the worker; returns the queue of its reports, which None closes."""
        mailbox = queue.Queue()
        with self._lock:
            process = self._current()
            self._jobs += 1
            process.mailboxes[self._jobs] = mailbox
            message = json.dumps({"job": self._jobs, **job}) + "\n"
            try:
                process.popen.stdin.write(message.encode())
                process.popen.stdin.flush()
            except BrokenPipeError:  # the worker has died already
                mailbox.put(None)
        return mailbox

    def close(self) -> None:
        """End the worker and all that it has started."""
        with self._lock:
            for process in self._processes:
                process.end()
            self._processes.clear()

    def _current(self) -> _Process:
        """The worker for the next job, started if there is none that can take it."""
        signature = source_signature()
        if self._processes:
            latest = self._processes[-1]
            if not latest.over and latest.signature == signature:
                return latest
            # It has died, or it has imported sources that have changed since.
            latest.retired = True
            if not latest.mailboxes:
                latest.end()
        self._processes.append(self._start(signature))
        return self._processes[-1]

    def _start(self, signature: str) -> _Process:
        """Start a worker and tell it what to prepare."""
        make_folder(self._log.parent)
        with open(self._log, "a", encoding="utf-8") as errors:  # all workers append to one file
            popen = subprocess.Popen(
                [sys.executable, "-m", "prunebook.runs.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
            )
        first = {"preload": list(self._preload()), "models": self._models}
        popen.stdin.write((json.dumps(first) + "\n").encode())
        popen.stdin.flush()
        process = _Process(popen, signature)
        threading.Thread(target=_deliver, args=(process,), daemon=True).start()
        return process


def _deliver(process: _Process) -> None:
    """Put each report of a worker into its job's mailbox; at the end, close those still open."""
    try:
        for line in process.popen.stdout:
            report = json.loads(line)
            process.mailboxes[report["job"]].put(report)
            if "ended" in report:
                del process.mailboxes[report["job"]]
                if process.retired and not process.mailboxes:
                    process.popen.stdin.close()
    finally:
        process.over = True
        for mailbox in list(process.mailboxes.values()):
            mailbox.put(None)
        process.mailboxes.clear()

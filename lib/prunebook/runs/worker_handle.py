"""The run's side of the worker: starts it, sends it jobs, and replaces it when it has died."""

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
    """How a notebook's process ended: its exit code, what it said of a failure, its kernel's
    memory.

    `code` is negative for a signal, and None where the worker died first; `peak_memory` is the
    largest resident size in bytes, None where it is not known; `seconds` are those since the
    process began, of which the worker's own start is no part where it forks.
    """

    code: int | None
    failure: dict[str, Any] | None
    peak_memory: int | None
    seconds: float = 0.0


@dataclass
class _Process:
    """A running worker, and the mailbox of each job that it has."""

    popen: subprocess.Popen
    signature: str
    mailboxes: dict[int, queue.Queue] = field(default_factory=dict)
    over: bool = False
    retired: bool = False  # gets no more jobs, and ends once it has none

    def end(self) -> None:
        """Let it end, with all that it has started, and wait for that."""
        with contextlib.suppress(BrokenPipeError):  # it has died, and what was to be sent is lost
            self.popen.stdin.close()
        self.popen.wait()


class Workers:
    """The worker of a run, made at the first job, and anew where it died or the library changed.

    Args:
        preload: gives the names of the modules that a worker imports before its first job.
        models: names of embedded models; it converts those that the cache lacks.
        environment: of the worker and of all its kernels.
        log: the file that takes what the worker itself prints.
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
        """Run one job, as `execute.execute` takes it, with the file `log` for what it prints.

        Args:
            on_cell: called with the number of cells done.
        """
        mailbox = queue.Queue()
        with self._lock:
            process = self._current()
            self._jobs += 1
            number = self._jobs
            process.mailboxes[number] = mailbox
            message = json.dumps({"job": number, **job}) + "\n"
            try:
                process.popen.stdin.write(message.encode())
                process.popen.stdin.flush()
            except BrokenPipeError:
                mailbox.put(None)  # it has died already
        failure = None
        peak_memory = None
        began = time.perf_counter()
        while (said := mailbox.get()) is not None:
            if "started" in said:
                began = time.perf_counter()
            if "cell" in said:
                on_cell(said["cell"])
            failure = said.get("failure", failure)
            peak_memory = said.get("peak_memory", peak_memory)
            if "ended" in said:
                return Ended(said["ended"], failure, peak_memory, time.perf_counter() - began)
        return Ended(None, failure, peak_memory, time.perf_counter() - began)

    def close(self) -> None:
        """End the worker and all that it has started."""
        with self._lock:
            for process in self._processes:
                process.end()
            self._processes.clear()

    def _current(self) -> _Process:
        """The worker for the next job."""
        signature = source_signature()
        latest = self._processes[-1] if self._processes else None
        if latest is not None and not latest.over and latest.signature == signature:
            return latest
        if latest is not None:
            latest.retired = True
            if not latest.mailboxes:
                latest.end()
        self._processes.append(self._start(signature))
        return self._processes[-1]

    def _start(self, signature: str) -> _Process:
        make_folder(self._log.parent)
        with open(self._log, "a", encoding="utf-8") as errors:  # of all workers of all runs
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
    """Put each line of a worker into its job's mailbox; at the end, None into those still open."""
    try:
        for line in process.popen.stdout:
            said = json.loads(line)
            mailbox = process.mailboxes[said["job"]]
            mailbox.put(said)
            if "ended" in said:
                del process.mailboxes[said["job"]]
                if process.retired and not process.mailboxes:
                    process.popen.stdin.close()
    finally:
        process.over = True
        for mailbox in list(process.mailboxes.values()):
            mailbox.put(None)
        process.mailboxes.clear()

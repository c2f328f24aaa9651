"""What runs each notebook of a run: locks, the worker, and the files that an execution leaves."""

import contextlib
import datetime
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import nbformat

from ..files import make_folder, write_atomic
from .cache_key import rerun_key
from .executed import executed_path, read_execution
from .notebooks import Runnable, place
from .progress import Progress
from .summary import Failure, Outcome
from .worker_handle import Ended, Workers


@dataclass
class Runner:
    """Runs notebooks under one profile; on an interruption it stops the processes it has
    started."""

    root: Path
    profile: str
    force: bool
    fail_fast: bool
    workers: Workers
    progress: Progress
    stopping: threading.Event = field(default_factory=threading.Event)
    failed: threading.Event = field(default_factory=threading.Event)

    def run_all(self, waiting: dict[Runnable, dict[str, Any]], jobs: int) -> dict[str, Outcome]:
        """Run each with its parameters; name -> outcome."""
        try:
            with ThreadPoolExecutor(jobs) as pool:
                futures = [pool.submit(self._run, *item) for item in waiting.items()]
                try:
                    outcomes = [future.result() for future in as_completed(futures)]
                except BaseException:
                    self.stopping.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.workers.close()
                    raise
        finally:
            self.workers.close()
        return {outcome.name: outcome for outcome in outcomes}

    def _run(self, runnable: Runnable, parameters: dict[str, Any]) -> Outcome:
        if self.fail_fast and self.failed.is_set():
            outcome = Outcome(runnable.name, "not started")
        else:
            outcome = self._run_locked(runnable, parameters)
        if outcome.status == "failed":
            self.failed.set()
        self.progress.end(outcome)
        return outcome

    def _run_locked(self, runnable: Runnable, parameters: dict[str, Any]) -> Outcome:
        """Run the notebook unless its execution is up to date, no other run doing so meanwhile."""
        done = executed_path(self.root, self.profile, runnable.name)
        make_folder(done.parent)
        with self._locked(done.with_name(f".{done.stem}.lock")):
            source = runnable.read()
            key = rerun_key(source, parameters)
            known = read_execution(self.root, self.profile, runnable.name)
            if known and known.key == key and not self.force:
                return Outcome(runnable.name, "up to date")
            self.progress.start(runnable.name)
            return self._execute(runnable, source, parameters, key)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold the notebook's lock, against another run of the same notebook at the same time."""
        lock = filelock.FileLock(path)
        while True:
            if self.stopping.is_set():
                raise CancelledError
            try:
                lock.acquire(timeout=1)
                break
            except filelock.Timeout:
                continue
        try:
            yield
        finally:
            lock.release()

    def _execute(
        self,
        runnable: Runnable,
        source: nbformat.NotebookNode,
        parameters: dict[str, Any],
        key: str,
    ) -> Outcome:
        """Execute under a temporary name; a failed notebook is kept beside, with its process's
        log."""
        done = executed_path(self.root, self.profile, runnable.name)
        read = done.with_name(f".{done.stem}.source.ipynb")
        running = done.with_name(f".{done.stem}.running.ipynb")
        failed = done.with_suffix(".failed.ipynb")
        job = {
            "input": str(read),
            "output": str(running),
            "parameters": parameters,
            "cwd": str(runnable.path.parent),
            "log": str(done.with_suffix(".log")),
        }
        running.unlink(missing_ok=True)  # that of a run which was killed
        write_atomic(read, nbformat.writes(source))
        try:
            ended = self.workers.execute(job, lambda cell: self.progress.cell(runnable.name, cell))
        finally:
            read.unlink(missing_ok=True)
        seconds = ended.seconds
        failure = _failure_of(ended, source)
        if failure is not None:
            if running.exists():
                os.replace(running, failed)
            return Outcome(runnable.name, "failed", seconds, failure, ended.peak_memory)
        entry = {
            "key": key,
            "profile": self.profile,
            "seconds": round(seconds, 1),
            "date": datetime.date.today().isoformat(),
            "parameters": parameters,
        }
        done.with_suffix(".key").unlink(missing_ok=True)
        os.replace(running, done)
        write_atomic(done.with_suffix(".key"), json.dumps(entry, indent=1))
        failed.unlink(missing_ok=True)
        return Outcome(runnable.name, "ran", seconds, None, ended.peak_memory)


def _failure_of(ended: Ended, source: nbformat.NotebookNode) -> Failure | None:
    """What the summary says of the end of a notebook's process; None where all went well."""
    if ended.failure is not None:
        failure = dict(ended.failure)
        return Failure(place(source, failure.pop("cell")), **failure)
    if ended.code == 0:
        return None
    if ended.code is None:
        message = "the worker ended, and the notebook's process with it; see worker.log"
    elif ended.code < 0:
        message = f"the notebook's process ended with signal {-ended.code}; see the log"
    else:
        message = f"the notebook's process ended with exit code {ended.code}; see the log"
    return Failure("", "", "ProcessEnded", message)

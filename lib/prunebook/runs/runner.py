"""Running the notebooks of one run: locks, the worker, and the files that an execution leaves."""

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
from ..notebook.stated import stated_text
from .cache_key import rerun_key
from .executed import executed_path, read_execution
from .notebooks import Runnable, place
from .progress import Progress
from .summary import Failure, Outcome
from .worker_handle import Ended, Workers


@dataclass
class Runner:
    """Runs notebooks under one profile, and stops what it has started when it is interrupted.

    Attributes:
        root: folder of the book.
        profile: profile of the run.
        force: run also what has not changed.
        fail_fast: start no further notebook once one has failed.
        workers: what executes the notebooks.
        progress: what shows the state of the run.
        stopping: set when the run is interrupted.
        failed: set when a notebook has failed.
    """

    root: Path
    profile: str
    force: bool
    fail_fast: bool
    workers: Workers
    progress: Progress
    stopping: threading.Event = field(default_factory=threading.Event)
    failed: threading.Event = field(default_factory=threading.Event)

    def run_all(self, waiting: dict[Runnable, dict[str, Any]], jobs: int) -> dict[str, Outcome]:
        """Run notebooks, several at a time.

        Args:
            waiting: notebook -> its parameters.
            jobs: number of notebooks that run at a time.

        Returns:
            Name -> outcome.
        """
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
        """Run one notebook, unless another has failed and that ends the run."""
        if self.fail_fast and self.failed.is_set():
            outcome = Outcome(runnable.name, "not started")
        else:
            outcome = self._run_locked(runnable, parameters)
        if outcome.status == "failed":
            self.failed.set()
        self.progress.end(outcome)
        return outcome

    def _run_locked(self, runnable: Runnable, parameters: dict[str, Any]) -> Outcome:
        """Run the notebook unless its execution is up to date; no other run can do so meanwhile."""
        done = executed_path(self.root, self.profile, runnable.name)
        make_folder(done.parent)
        with self._locked(done.with_name(f".{done.stem}.lock")):
            source = runnable.read()
            key = rerun_key(source, parameters)
            execution = read_execution(self.root, self.profile, runnable.name)
            if execution and execution.key == key and not self.force:
                return Outcome(runnable.name, "up to date")
            self.progress.start(runnable.name)
            return self._execute(runnable, source, parameters, key)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold the notebook's lock, so that no other run executes the same notebook.

        Raises:
            CancelledError: the run is interrupted before it gets the lock.
        """
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
        """Execute the notebook under a temporary name, and rename it if it does not fail.

        A notebook that fails is kept with the ending `.failed.ipynb`. The log of its process has
        the ending `.log`.

        Args:
            runnable: the notebook.
            source: source of the notebook.
            parameters: its parameters.
            key: its rerun key.
        """
        done = executed_path(self.root, self.profile, runnable.name)
        running = done.with_name(f".{done.stem}.running.ipynb")
        running.unlink(missing_ok=True)  # a run that was killed may have left it
        failed = done.with_suffix(".failed.ipynb")
        job = {
            "input": str(done.with_name(f".{done.stem}.source.ipynb")),
            "output": str(running),
            "parameters": parameters,
            "cwd": str(runnable.path.parent),
            "log": str(done.with_suffix(".log")),
            "claims": stated_text(source),
        }
        ended = self._send(job, runnable.name, source)
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

    def _send(self, job: dict[str, Any], name: str, source: nbformat.NotebookNode) -> Ended:
        """Write the source of the notebook `name` to the input of a job, and let a worker do it."""
        copy = write_atomic(job["input"], nbformat.writes(source))
        try:
            return self.workers.execute(job, lambda cell: self.progress.cell(name, cell))
        finally:
            copy.unlink(missing_ok=True)


def _failure_of(ended: Ended, source: nbformat.NotebookNode) -> Failure | None:
    """The failure that the end of a notebook's process means; None where all went well.

    Args:
        ended: how the process ended.
        source: source of the notebook.
    """
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

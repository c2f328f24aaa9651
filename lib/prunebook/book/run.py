"""Run notebooks: only those that changed, several at once, a failing one without harm to the others."""

import contextlib
import datetime
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import nbformat
from tqdm import tqdm

from ..errors import UserError
from ..files import make_folder, write_atomic
from .executions import executed_folder, executed_path, parameters_for, read_execution
from .extra import versions_of
from .key import PACKAGE, rerun_key
from .outcomes import Failure, Outcome, Summary
from .runnables import Runnable, place, read_runnables


def run_notebooks(
    root: Path | str,
    names: Sequence[str] | None = None,
    *,
    profile: str = "book",
    jobs: int = 1,
    force: bool = False,
) -> Summary:
    """Execute the papers that have a method and the pages with code cells into `_build/executed/<profile>/`.

    Progress and the closing table are printed. A notebook whose rerun key has not changed is left alone.

    Args:
        root: the book's folder.
        names: papers' slugs and pages' names, as `concepts/evaluation`; None or none: all.
        profile: a profile of `papers/profiles.yml`.
        jobs: notebooks at once, each in its own process, the cores shared evenly.
        force: run also what has not changed.
    Raises:
        UserError: an unknown name or profile, fewer than one job, an unreadable notebook or profile file, or
            the book's packages are not installed.
    """
    versions_of("ipykernel", "papermill")
    root = Path(root).resolve()
    runnables = {runnable.name: runnable for runnable in read_runnables(root)}
    for name in names or []:
        if name not in runnables:
            allowed = ", ".join(runnables) or "none, the book is empty"
            raise UserError(f"unknown notebook {name!r}; allowed: {allowed}")
    if jobs < 1:
        raise UserError(f"jobs must be 1 or more, not {jobs}")
    chosen = [runnable for name, runnable in runnables.items() if not names or name in names]
    sources = {runnable: runnable.read() for runnable in chosen}
    parameters = {runnable: parameters_for(root, profile, runnable, source) for runnable, source in sources.items()}
    waiting = {runnable: parameters[runnable] for runnable in chosen if runnable.implemented}
    jobs = min(jobs, max(len(waiting), 1))
    with _Progress(sum(len(sources[runnable].cells) for runnable in waiting)) as progress:
        runner = _Runner(root, profile, force, _environment(jobs), progress)
        outcomes = runner.run_all(waiting, jobs)
    summary = Summary(
        profile,
        [outcomes.get(name, Outcome(name, "not run yet")) for name in (runnable.name for runnable in chosen)],
        executed_folder(root, profile),
    )
    print(summary, flush=True)
    return summary


def _environment(jobs: int) -> dict[str, str]:
    """The environment of the kernels: this library first on the path, the cores shared among the jobs."""
    path = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return environment


class _Progress:
    """A bar over the cells of all notebooks on a terminal, a line for each notebook elsewhere."""

    def __init__(self, cells: int):
        self._bar = tqdm(total=cells, unit="cell", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._running = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def start(self, name: str) -> None:
        with self._lock:
            self._running[name] = 0
            if self._bar.disable:
                print(f"{name}: running", flush=True)
            self._bar.set_postfix_str(" ".join(self._running))

    def cell(self, name: str, done: int) -> None:
        with self._lock:
            self._bar.update(done - self._running[name])
            self._running[name] = done

    def end(self, outcome: Outcome, cells: int) -> None:
        """`cells` is the notebook's number of cells: those it did not run count as done."""
        with self._lock:
            self._bar.update(max(cells - self._running.pop(outcome.name, 0), 0))
            self._bar.set_postfix_str(" ".join(self._running))
            took = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
            tqdm.write(f"{outcome.name}: {outcome.status}{took}")
            sys.stdout.flush()


@dataclass
class _Runner:
    """Runs notebooks under one profile; on an interruption it stops the processes it has started."""

    root: Path
    profile: str
    force: bool
    environment: dict[str, str]
    progress: _Progress
    processes: set = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run_all(self, waiting: dict[Runnable, dict[str, Any]], jobs: int) -> dict[str, Outcome]:
        """Run each with its parameters."""
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._run, runnable, parameters) for runnable, parameters in waiting.items()]
            try:
                outcomes = [future.result() for future in as_completed(futures)]
            except BaseException:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.processes):
                    process.terminate()
                raise
        return {outcome.name: outcome for outcome in outcomes}

    def _run(self, runnable: Runnable, parameters: dict[str, Any]) -> Outcome:
        done = executed_path(self.root, self.profile, runnable.name)
        make_folder(done.parent)
        with self._locked(done.with_name(f".{done.stem}.lock")):
            source = runnable.read()
            key = rerun_key(source, parameters)
            known = read_execution(self.root, self.profile, runnable.name)
            if known and known.key == key and not self.force:
                outcome = Outcome(runnable.name, "up to date")
            else:
                self.progress.start(runnable.name)
                outcome = self._execute(runnable, source, parameters, key)
        self.progress.end(outcome, len(source.cells))
        return outcome

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
        self, runnable: Runnable, source: nbformat.NotebookNode, parameters: dict[str, Any], key: str
    ) -> Outcome:
        """Execute under a temporary name; a failed notebook is kept beside, with the log of its process."""
        began = time.perf_counter()
        done = executed_path(self.root, self.profile, runnable.name)
        read, running = done.with_name(f".{done.stem}.source.ipynb"), done.with_name(f".{done.stem}.running.ipynb")
        failed = done.with_suffix(".failed.ipynb")
        job = {"input": str(read), "output": str(running), "parameters": parameters, "cwd": str(runnable.path.parent)}
        write_atomic(read, nbformat.writes(source))
        try:
            message = self._process(runnable.name, job, done.with_suffix(".log"))
        finally:
            read.unlink(missing_ok=True)
        seconds = time.perf_counter() - began
        if message is not None:
            if running.exists():
                os.replace(running, failed)
            cell = message.pop("cell")
            failure = Failure("" if cell is None else place(source, cell), **message)
            return Outcome(runnable.name, "failed", seconds, failure)
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
        return Outcome(runnable.name, "ran", seconds)

    def _process(self, name: str, job: dict[str, Any], log: Path) -> dict[str, Any] | None:
        """Run the job in a process of its own; what it says of its failure, None if it does not fail."""
        with open(log, "w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "prunebook.book.execute"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self.environment,
            )
            self.processes.add(process)
            if self.stopping.is_set():
                process.terminate()
            with contextlib.suppress(BrokenPipeError):  # it has ended already: the exit code tells
                process.stdin.write(json.dumps(job))
                process.stdin.close()
            failure = None
            for line in process.stdout:
                message = json.loads(line)
                if "failure" in message:
                    failure = message["failure"]
                else:
                    self.progress.cell(name, message["cell"])
            process.stdout.close()
            code = process.wait()
            self.processes.discard(process)
        if failure is None and code:
            end = f"signal {-code}" if code < 0 else f"exit code {code}"
            said = f"the notebook's process ended with {end}; see the log"
            return {"cell": None, "line": "", "error": "ProcessEnded", "message": said}
        return failure

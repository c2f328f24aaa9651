"""Run notebooks: only those that changed, several at once, a failing one without harm to the others."""

import contextlib
import datetime
import json
import os
import shlex
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
from tqdm import tqdm

from ..catalog import Paper, read_papers
from ..catalog.reader import read_notebook
from ..errors import UserError
from ..files import write_atomic
from .executions import executed_folder, read_execution
from .key import PACKAGE, rerun_key
from .profiles import parameters_of


@dataclass(frozen=True)
class Failure:
    """Where a notebook failed: the cell's index in `papers/<slug>.ipynb`, its first line, and the error."""

    cell: int
    line: str
    error: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook: `ran`, `up to date`, `failed` or `not run yet`; seconds are wall time."""

    slug: str
    status: str
    seconds: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True)
class Summary:
    """The outcomes of a run, in the order of the book's tables. As text: a short table."""

    profile: str
    outcomes: list[Outcome]
    folder: Path

    @property
    def failed(self) -> list[Outcome]:
        """The notebooks that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def __str__(self) -> str:
        width = max((len(outcome.slug) for outcome in self.outcomes), default=0)
        lines = []
        for outcome in self.outcomes:
            took = f"{outcome.seconds:8.1f} s" if outcome.seconds else ""
            lines.append(f"{outcome.slug:<{width}}  {outcome.status:<11}{took}".rstrip())
            if outcome.failure:
                lines += [f"{'':<{width}}  {text}" for text in self._explain(outcome)]
        return "\n".join(lines)

    def _explain(self, outcome: Outcome) -> list[str]:
        failure = outcome.failure
        command = shlex.join(["prunebook", "run", outcome.slug, "--profile", self.profile])
        return [
            f"cell {failure.cell}: {failure.line}",
            f"{failure.error}: {failure.message}",
            f"kept: {self.folder / outcome.slug}.failed.ipynb, {outcome.slug}.log",
            f"rerun: {command}",
        ]


def run_notebooks(
    root: Path | str,
    slugs: Sequence[str] | None = None,
    *,
    profile: str = "ci",
    jobs: int = 1,
    force: bool = False,
) -> Summary:
    """Execute the notebooks of papers that have a method into `_build/executed/<profile>/`.

    Progress and the closing table are printed. A notebook whose rerun key has not changed is left alone.

    Args:
        root: the book's folder.
        slugs: papers; None or none: all.
        profile: a profile of `papers/profiles.yml`.
        jobs: notebooks at once, each in its own process, the cores shared evenly.
        force: run also what has not changed.
    Raises:
        UserError: an unknown slug or profile, fewer than one job, an unreadable notebook or profile file.
    """
    root = Path(root).resolve()
    papers = {paper.slug: paper for paper in read_papers(root)}
    for slug in slugs or []:
        if slug not in papers:
            allowed = ", ".join(papers) or "none, the book is empty"
            raise UserError(f"unknown paper {slug!r}; allowed: {allowed}")
    if jobs < 1:
        raise UserError(f"jobs must be 1 or more, not {jobs}")
    chosen = [paper for slug, paper in papers.items() if not slugs or slug in slugs]
    parameters = {paper.slug: parameters_of(root, profile, paper.slug) for paper in chosen}
    runnable = [paper for paper in chosen if paper.record.method is not None]
    jobs = min(jobs, max(len(runnable), 1))
    with _Progress(sum(len(read_notebook(paper.path).cells) for paper in runnable)) as progress:
        runner = _Runner(root, profile, force, _environment(jobs), progress)
        outcomes = runner.run_all(runnable, parameters, jobs)
    summary = Summary(
        profile,
        [outcomes.get(paper.slug, Outcome(paper.slug, "not run yet")) for paper in chosen],
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

    def start(self, slug: str) -> None:
        with self._lock:
            self._running[slug] = 0
            if self._bar.disable:
                print(f"{slug}: running", flush=True)
            self._bar.set_postfix_str(" ".join(self._running))

    def cell(self, slug: str, done: int) -> None:
        with self._lock:
            self._bar.update(done - self._running[slug])
            self._running[slug] = done

    def end(self, outcome: Outcome, cells: int) -> None:
        """`cells` is the notebook's number of cells: those it did not run count as done."""
        with self._lock:
            self._bar.update(max(cells - self._running.pop(outcome.slug, 0), 0))
            self._bar.set_postfix_str(" ".join(self._running))
            took = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
            tqdm.write(f"{outcome.slug}: {outcome.status}{took}")
            sys.stdout.flush()


@dataclass
class _Runner:
    """Runs papers of one profile; on an interruption it stops the processes it has started."""

    root: Path
    profile: str
    force: bool
    environment: dict[str, str]
    progress: _Progress
    processes: set = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run_all(self, papers: list[Paper], parameters: dict[str, dict], jobs: int) -> dict[str, Outcome]:
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._run, paper, parameters[paper.slug]) for paper in papers]
            try:
                outcomes = [future.result() for future in as_completed(futures)]
            except BaseException:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.processes):
                    process.terminate()
                raise
        return {outcome.slug: outcome for outcome in outcomes}

    def _run(self, paper: Paper, parameters: dict[str, Any]) -> Outcome:
        folder = executed_folder(self.root, self.profile)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}") from error
        with self._locked(folder / f".{paper.slug}.lock"):
            notebook = read_notebook(paper.path)
            key = rerun_key(notebook, parameters)
            known = read_execution(self.root, self.profile, paper.slug)
            if known and known.key == key and not self.force:
                outcome = Outcome(paper.slug, "up to date")
            else:
                self.progress.start(paper.slug)
                outcome = self._execute(paper, parameters, key, folder)
        self.progress.end(outcome, len(notebook.cells))
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

    def _execute(self, paper: Paper, parameters: dict[str, Any], key: str, folder: Path) -> Outcome:
        """Execute under a temporary name; a failed notebook is kept beside, with the log of its process."""
        began = time.perf_counter()
        running, done = folder / f".{paper.slug}.running.ipynb", folder / f"{paper.slug}.ipynb"
        failed = folder / f"{paper.slug}.failed.ipynb"
        failure = self._process(paper, parameters, running, folder / f"{paper.slug}.log")
        seconds = time.perf_counter() - began
        if failure is not None:
            if running.exists():
                os.replace(running, failed)
            return Outcome(paper.slug, "failed", seconds, failure)
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
        return Outcome(paper.slug, "ran", seconds)

    def _process(self, paper: Paper, parameters: dict[str, Any], output: Path, log: Path) -> Failure | None:
        job = {"input": str(paper.path), "output": str(output), "parameters": parameters}
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
                process.stdin.write(json.dumps({**job, "cwd": str(paper.path.parent)}))
                process.stdin.close()
            failure = None
            for line in process.stdout:
                message = json.loads(line)
                if "failure" in message:
                    failure = Failure(**message["failure"])
                else:
                    self.progress.cell(paper.slug, message["cell"])
            process.stdout.close()
            code = process.wait()
            self.processes.discard(process)
        if failure is None and code:
            end = f"signal {-code}" if code < 0 else f"exit code {code}"
            return Failure(0, "", "ProcessEnded", f"the notebook's process ended with {end}; see the log")
        return failure

"""Running notebooks: only those that changed, several at once; one that fails stops no other."""

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..catalog.source_graph import PACKAGE, parse, source_graph
from ..errors import UserError
from ..notebook.quick import PROFILE_VARIABLE, QUICK
from .executed import executed_folder, parameters_for, read_execution
from .installed import versions_of
from .machine import usable_cores, usable_memory
from .notebooks import Runnable, read_runnables
from .progress import Progress, measured_durations
from .runner import Runner
from .since import changed_since
from .summary import Outcome, Summary
from .worker_handle import Workers

_NVIDIA = "/dev/nvidiactl"  # this file exists where the driver of an NVIDIA GPU is loaded
_BYTES_PER_PAGE = 6 * 2**30  # memory that one page with its share of the worker may take
_MOST_JOBS = 4  # notebooks at once, however many cores there are


def run_notebooks(
    root: Path | str,
    names: Sequence[str] | None = None,
    *,
    profile: str = QUICK,
    jobs: int | None = None,
    force: bool = False,
    since: str | None = None,
    fail_fast: bool = False,
) -> Summary:
    """Execute papers and pages into `_build/executed/<profile>/`; print progress and a table.

    A notebook whose rerun key has not changed is not run again.

    Args:
        root: folder of the book.
        names: slugs of papers and names of pages, e.g. `concepts/evaluation`; None for all.
        profile: profile of `papers/profiles.yml`.
        jobs: number of notebooks that run at once, each in its own process, the cores shared
            evenly; None for `automatic_jobs`.
        force: run also what has not changed.
        since: revision of the book's repository; only pages that the changes since then reach run.
        fail_fast: start no further notebook once one has failed.

    Returns:
        The outcome of each notebook.

    Raises:
        UserError: an unknown name, profile or revision, fewer than one job, an unreadable notebook
            or profile file, or the packages of the `book` extra are not installed.
    """
    versions_of("ipykernel", "papermill")
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs must be 1 or more, not {jobs}")
    root = Path(root).resolve()
    chosen = _chosen(root, names or [])
    batch = _read_batch(root, profile, chosen)
    outcomes = {runnable.name: Outcome(runnable.name, "not run yet") for runnable in chosen}
    if since is not None:
        outcomes |= _leave_unchanged(batch, since)
    outcomes |= _execute(batch, jobs or automatic_jobs(profile), force, fail_fast)
    summary = Summary(profile, list(outcomes.values()), executed_folder(root, profile))
    print(summary, flush=True)
    return summary


@dataclass
class _Batch:
    """The notebooks that a run may execute.

    Attributes:
        root: folder of the book.
        profile: profile of the run.
        sources: notebook -> its source.
        parameters: notebook -> its parameters.
    """

    root: Path
    profile: str
    sources: dict[Runnable, nbformat.NotebookNode]
    parameters: dict[Runnable, dict[str, Any]]


def _read_batch(root: Path, profile: str, chosen: Sequence[Runnable]) -> _Batch:
    """Read the chosen notebooks; the batch has those of them that the library implements."""
    sources = {}
    parameters = {}
    for runnable in chosen:
        source = runnable.read()
        values = parameters_for(root, profile, runnable, source)
        if runnable.implemented:
            sources[runnable] = source
            parameters[runnable] = values
    return _Batch(root, profile, sources, parameters)


def _leave_unchanged(batch: _Batch, since: str) -> dict[str, Outcome]:
    """Take out of the batch what the changes since a revision do not reach; its outcomes."""
    reached = set(changed_since(batch.root, batch.profile, list(batch.sources), since))
    outcomes = {}
    for runnable in list(batch.sources):
        if runnable not in reached:
            outcomes[runnable.name] = Outcome(runnable.name, f"as in {since}")
            del batch.sources[runnable]
            del batch.parameters[runnable]
    return outcomes


def _execute(batch: _Batch, jobs: int, force: bool, fail_fast: bool) -> dict[str, Outcome]:
    """Execute the notebooks of a batch; name -> outcome. Arguments as for `run_notebooks`."""
    jobs = min(jobs, max(len(batch.sources), 1))
    workers = Workers(
        lambda: preloaded_modules(batch.sources, batch.parameters),
        _models_of(batch.parameters.values()),
        _environment(jobs, batch.profile),
        executed_folder(batch.root, batch.profile) / "worker.log",
    )
    progress = Progress(
        {runnable.name: len(source.cells) for runnable, source in batch.sources.items()},
        _expected_durations(batch),
        jobs,
    )
    runner = Runner(batch.root, batch.profile, force, fail_fast, workers, progress)
    with progress.shown():
        return runner.run_all(batch.parameters, jobs)


def automatic_jobs(profile: str) -> int:
    """The number of notebooks that run at once where the user gives none.

    It is one where times are judged or a GPU is shared. The times of a quick run are not judged,
    and two notebooks with one core each end sooner than one after the other with both cores. So a
    quick run takes what cores and memory allow, four at most.
    """
    if profile != QUICK or Path(_NVIDIA).exists():
        return 1
    pages_in_memory = usable_memory() // _BYTES_PER_PAGE
    return max(1, min(usable_cores(), pages_in_memory, _MOST_JOBS))


def _chosen(root: Path, names: Sequence[str]) -> list[Runnable]:
    """The notebooks of these names, in the book's order; all notebooks for no name.

    Raises:
        UserError: an unknown name.
    """
    runnables = {runnable.name: runnable for runnable in read_runnables(root)}
    for name in names:
        if name not in runnables:
            allowed = ", ".join(runnables) or "none, the book is empty"
            raise UserError(f"unknown notebook {name!r}; allowed: {allowed}")
    return [runnable for name, runnable in runnables.items() if not names or name in names]


def _expected_durations(batch: _Batch) -> dict[str, float]:
    """Page -> seconds of its last run on this machine, or else of the recorded run."""
    durations = measured_durations(batch.root, batch.profile)
    for runnable in batch.sources:
        execution = read_execution(batch.root, batch.profile, runnable.name)
        if execution is not None:
            durations[runnable.name] = execution.seconds
    return durations


def _environment(jobs: int, profile: str) -> dict[str, str]:
    """The environment of the kernels, where this library comes first on the path.

    Args:
        jobs: number of notebooks that share the cores.
        profile: profile of the run, which the kernels find in a variable.
    """
    path = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        PROFILE_VARIABLE: profile,
    }
    if jobs > 1 or usable_cores() < (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(max(1, usable_cores() // jobs))
    return environment


def _models_of(parameters: Iterable[Mapping[str, Any]]) -> list[str]:
    """The values of all parameters of pages that name a model, e.g. `model_name`."""
    models = set()
    for values in parameters:
        models.update(value for name, value in values.items() if name.endswith("_name"))
    return sorted(models)


def preloaded_modules(
    sources: Mapping[Runnable, nbformat.NotebookNode],
    parameters: Mapping[Runnable, Mapping[str, Any]],
) -> list[str]:
    """The modules that notebooks import: first the library's that they reach, then the others.

    Args:
        sources: notebook -> its source.
        parameters: notebook -> its parameters.
    """
    graph = source_graph()
    reached = set()
    imported = set()
    for runnable, source in sources.items():
        code = [cell.source for cell in source.cells if cell.cell_type == "code"]
        try:
            tree = parse("\n".join(code))
        except SyntaxError:  # the page fails with the same error when it is run
            continue
        reached |= graph.reach(code, parameters[runnable])
        imported |= _imports(tree)
    others = {name for name in imported if name.split(".")[0] != graph.name}
    return [*sorted(reached), *sorted(others)]


def _imports(tree: ast.Module) -> set[str]:
    """The modules that code imports outside functions and other blocks."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return names

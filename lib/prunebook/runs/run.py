"""Run notebooks: only those that changed, several at once, a failing one without harm to the
others."""

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from ..catalog.source_graph import PACKAGE, parse, source_graph
from ..errors import UserError
from ..notebook.claims import PROFILE_VARIABLE, QUICK
from .executed import executed_folder, parameters_for, read_execution
from .installed import versions_of
from .machine import usable_cores, usable_memory
from .notebooks import Runnable, read_runnables
from .progress import Progress, measured_durations
from .runner import Runner
from .since import changed_since
from .summary import Outcome, Summary
from .worker_handle import Workers

_NVIDIA = "/dev/nvidiactl"  # is there where the driver of a GPU is
_MEMORY_OF_A_PAGE = 6 * 2**30  # bytes that a page and its worker may take
_MOST_JOBS = 4


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
    """Execute the papers that have a method and the pages with code cells into
    `_build/executed/<profile>/`.

    Progress and the closing table are printed. A notebook whose rerun key has not changed is left
    alone.

    Args:
        root: the book's folder.
        names: papers' slugs and pages' names, as `concepts/evaluation`; None or none: all.
        profile: a profile of `papers/profiles.yml`.
        jobs: notebooks at once, each in its own process, the cores shared evenly; None for
            `automatic_jobs`.
        force: run also what has not changed.
        since: a revision of the book's repository; only the pages that the changes since then
            reach.
        fail_fast: start no further notebook once one has failed.

    Raises:
        UserError: an unknown name, profile or revision, fewer than one job, an unreadable notebook
            or profile file, or the book's packages are not installed.
    """
    versions_of("ipykernel", "papermill")
    root = Path(root).resolve()
    chosen = _chosen(root, names or [])
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs must be 1 or more, not {jobs}")
    sources = {runnable: runnable.read() for runnable in chosen}
    parameters = {
        runnable: parameters_for(root, profile, runnable, source)
        for runnable, source in sources.items()
    }
    waiting = {runnable: parameters[runnable] for runnable in chosen if runnable.implemented}
    outcomes = {}
    if since is not None:
        reached = changed_since(root, profile, list(waiting), since)
        for runnable in waiting.keys() - set(reached):
            outcomes[runnable.name] = Outcome(runnable.name, f"as in {since}")
        waiting = {runnable: waiting[runnable] for runnable in reached}
    jobs = min(jobs or automatic_jobs(profile), max(len(waiting), 1))
    workers = Workers(
        lambda: preloaded_modules(
            {runnable: sources[runnable] for runnable in waiting}, parameters
        ),
        _models_of(waiting.values()),
        _environment(jobs, profile),
        executed_folder(root, profile) / "worker.log",
    )
    progress = Progress(
        {runnable.name: len(sources[runnable].cells) for runnable in waiting},
        _known_durations(root, profile, waiting),
        jobs,
    )
    runner = Runner(root, profile, force, fail_fast, workers, progress)
    with progress.shown():
        outcomes |= runner.run_all(waiting, jobs)
    summary = Summary(
        profile,
        [outcomes.get(name, Outcome(name, "not run yet")) for name in (r.name for r in chosen)],
        executed_folder(root, profile),
    )
    print(summary, flush=True)
    return summary


def automatic_jobs(profile: str) -> int:
    """How many notebooks run at once where nobody says so.

    One where times are judged or a GPU is shared. A quick run times nothing that counts, and two
    notebooks with one core each end sooner than one after the other with both; it takes what cores
    and memory allow, four at most.
    """
    if profile != QUICK or Path(_NVIDIA).exists():
        return 1
    in_memory = usable_memory() // _MEMORY_OF_A_PAGE
    return max(1, min(usable_cores(), in_memory, _MOST_JOBS))


def _chosen(root: Path, names: Sequence[str]) -> list[Runnable]:
    """The runnables of these names in the book's order; all for no name."""
    runnables = {runnable.name: runnable for runnable in read_runnables(root)}
    for name in names:
        if name not in runnables:
            allowed = ", ".join(runnables) or "none, the book is empty"
            raise UserError(f"unknown notebook {name!r}; allowed: {allowed}")
    return [runnable for name, runnable in runnables.items() if not names or name in names]


def _known_durations(root: Path, profile: str, runnables: Iterable[Runnable]) -> dict[str, float]:
    """Page -> seconds of its last run here, or else of the recorded run."""
    known = measured_durations(root, profile)
    for runnable in runnables:
        execution = read_execution(root, profile, runnable.name)
        if execution is not None:
            known[runnable.name] = execution.seconds
    return known


def _environment(jobs: int, profile: str) -> dict[str, str]:
    """The environment of the kernels: this library first on the path, the cores shared among the
    jobs."""
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
    """The models that pages name in their parameters, as `model_name`."""
    values = [
        value for given in parameters for key, value in given.items() if key.endswith("_name")
    ]
    return sorted(set(values))


def preloaded_modules(
    sources: Mapping[Runnable, nbformat.NotebookNode],
    parameters: Mapping[Runnable, Mapping[str, Any]],
) -> list[str]:
    """The modules that the notebooks import, the library's that they reach before the others."""
    graph = source_graph()
    reached = set()
    imported = set()
    for runnable, source in sources.items():
        code = [cell.source for cell in source.cells if cell.cell_type == "code"]
        try:
            tree = parse("\n".join(code))
        except SyntaxError:  # the page itself says so when it is run
            continue
        reached |= graph.reach(code, parameters[runnable])
        imported |= _imports(tree)
    others = {name for name in imported if name.split(".")[0] != graph.name}
    return [*sorted(reached), *sorted(others)]


def _imports(tree: ast.Module) -> set[str]:
    """The modules that code imports at its outermost level."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return names

"""Executed notebooks on disk: `_build/executed/<profile>/<name>.ipynb`, each beside its `.key`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..catalog.source_graph import PACKAGE
from .cache_key import rerun_key
from .notebooks import Runnable, assigned_parameters
from .profiles import load_profiles, other_model_profiles, parameters_of


@dataclass(frozen=True)
class Execution:
    """An executed notebook on disk.

    Attributes:
        path: the notebook with its outputs.
        key: rerun key of what was executed.
        profile: profile of the run.
        seconds: wall time.
        date: day of the run, as `2026-11-23`.
        parameters: values of the notebook's parameters.
    """

    path: Path
    key: str
    profile: str
    seconds: float
    date: str
    parameters: dict[str, Any]


def executed_folder(root: Path, profile: str) -> Path:
    """The folder of a profile's executed notebooks."""
    return root / "_build" / "executed" / profile


def executed_path(root: Path, profile: str, name: str) -> Path:
    """The path of an executed notebook; its key is beside it, with the ending `.key`."""
    return executed_folder(root, profile) / f"{name}.ipynb"


def read_execution(root: Path, profile: str, name: str) -> Execution | None:
    """The execution of a notebook under a profile, or None if there is no complete one.

    A notebook whose key is unreadable counts as not executed; a line on standard error says so.
    """
    path = executed_path(root, profile, name)
    key = path.with_suffix(".key")
    if not (path.is_file() and key.is_file()):
        return None
    try:
        return Execution(path, **json.loads(key.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        print(f"prunebook: {key}: not readable, so {name} counts as not executed", file=sys.stderr)
        return None


def parameters_for(
    root: Path, profile: str, runnable: Runnable, notebook: nbformat.NotebookNode
) -> dict[str, Any]:
    """The profile's parameters for a notebook: those that its source assigns.

    Args:
        root: folder of the book.
        profile: name of the profile.
        runnable: the notebook.
        notebook: source of the notebook.

    Raises:
        UserError: as for `parameters_of`.
    """
    return parameters_of(root, profile, runnable.name, assigned_parameters(notebook))


def current_key(root: Path, profile: str, runnable: Runnable, package: Path = PACKAGE) -> str:
    """The rerun key of a notebook as its source, the library and the profile are now.

    Args:
        root: folder of the book.
        profile: name of the profile.
        runnable: the notebook.
        package: folder of the library.

    Raises:
        UserError: the source or the profile cannot be read.
    """
    notebook = runnable.read()
    return rerun_key(notebook, parameters_for(root, profile, runnable, notebook), package)


def best_execution(root: Path, runnable: Runnable) -> tuple[Execution, bool] | None:
    """The execution of a notebook to publish.

    An execution that is up to date goes before one that is not. Among those alike, the profile
    that `papers/profiles.yml` lists last goes first. A profile that is `like` another is for
    records alone, and its executions are not published.

    Returns:
        The execution and whether it is up to date; None if there is none.
    """
    best = None
    others = other_model_profiles(root)
    for profile in load_profiles(root):
        execution = read_execution(root, profile, runnable.name)
        if execution is None or profile in others:
            continue
        is_current = execution.key == current_key(root, profile, runnable)
        if best is None or is_current or not best[1]:
            best = (execution, is_current)
    return best

"""Executed notebooks on disk: `_build/executed/<profile>/<name>.ipynb`, each with its key beside
it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..catalog.source_graph import PACKAGE
from .cache_key import rerun_key
from .notebooks import Runnable, assigned_parameters
from .profiles import load_profiles, parameters_of


@dataclass(frozen=True)
class Execution:
    """An executed notebook on disk, with the key and the parameters it was run with."""

    path: Path
    key: str
    profile: str
    seconds: float
    date: str
    parameters: dict[str, Any]


def executed_folder(root: Path, profile: str) -> Path:
    """Where a profile's executed notebooks lie."""
    return root / "_build" / "executed" / profile


def executed_path(root: Path, profile: str, name: str) -> Path:
    """Where the executed notebook of that name lies, with its key, `.key`, beside it."""
    return executed_folder(root, profile) / f"{name}.ipynb"


def read_execution(root: Path, profile: str, name: str) -> Execution | None:
    """The executed notebook under the profile, or None if there is none that is complete.

    One whose key is unreadable counts as not executed; a line on standard error says so.
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
    """The profile's parameters for `notebook`, the source of `runnable`: those that it assigns.

    Raises:
        UserError: as `parameters_of`.
    """
    return parameters_of(root, profile, runnable.name, assigned_parameters(notebook))


def current_key(root: Path, profile: str, runnable: Runnable, package: Path = PACKAGE) -> str:
    """The rerun key as the source, the library and the profile are now.

    Args:
        package: the library's folder.

    Raises:
        UserError: as for reading them.
    """
    notebook = runnable.read()
    return rerun_key(notebook, parameters_for(root, profile, runnable, notebook), package)


def best_execution(root: Path, runnable: Runnable) -> tuple[Execution, bool] | None:
    """The execution to publish and whether it is up to date; None if there is none.

    One that is up to date goes before one that is not, then a profile that its file lists later.
    """
    found = []
    for rank, profile in enumerate(load_profiles(root)):
        execution = read_execution(root, profile, runnable.name)
        if execution is not None:
            found.append((execution.key == current_key(root, profile, runnable), rank, execution))
    if not found:
        return None
    current, _, execution = max(found, key=lambda item: item[:2])
    return execution, current

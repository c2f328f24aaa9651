"""Executed notebooks on disk: `_build/executed/<profile>/<slug>.ipynb`, each with its key beside it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalog import Paper
from ..catalog.reader import read_notebook
from ..errors import UserError
from .key import rerun_key
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


def read_execution(root: Path, profile: str, slug: str) -> Execution | None:
    """The paper's executed notebook under the profile, or None if there is none that is complete."""
    path = executed_folder(root, profile) / f"{slug}.ipynb"
    if not (path.is_file() and path.with_suffix(".key").is_file()):
        return None
    try:
        return Execution(path, **json.loads(path.with_suffix(".key").read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        key = path.with_suffix(".key")
        raise UserError(f"{key}: not readable; delete it and run the notebook again") from error


def current_key(root: Path, profile: str, paper: Paper) -> str:
    """The paper's rerun key as its notebook, the library and the profile are now."""
    return rerun_key(read_notebook(paper.path), parameters_of(root, profile, paper.slug))


def best_execution(root: Path, paper: Paper) -> tuple[Execution, bool] | None:
    """The execution to publish and whether it is up to date; None if the notebook has not been run.

    One that is up to date goes before one that is not, then a profile that its file lists later.
    """
    found = []
    for rank, profile in enumerate(load_profiles(root)):
        execution = read_execution(root, profile, paper.slug)
        if execution is not None:
            found.append((execution.key == current_key(root, profile, paper), rank, execution))
    if not found:
        return None
    current, _, execution = max(found, key=lambda item: item[:2])
    return execution, current

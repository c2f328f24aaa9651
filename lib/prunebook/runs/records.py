"""Recorded runs: what notebooks measured, e.g. on other hardware, in `benchmarks/results/`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomic
from ..notebook.quick import QUICK
from .profiles import load_profiles

_KIND = "prunebook-runs"  # the field `kind` of a file of recorded runs
_VERSION = 1  # the form of such a file
_FOLDER = "benchmarks/results"


@dataclass(frozen=True)
class Run:
    """What one notebook measured in one run.

    Attributes:
        slug: slug of the paper.
        short: short name of the paper.
        profile: profile of the run.
        results: its tables, as the notebook's outputs hold them.
        claims: its claims, as the notebook's outputs hold them.
    """

    slug: str
    short: str
    profile: str
    results: list[dict[str, Any]]
    claims: list[dict[str, Any]]

    @property
    def origin(self) -> str:
        """Day, profile, device and commit of the run, as pages show them."""
        first = self.results[0]
        parts = [f"profile {self.profile}", first["protocol"].get("device")]
        parts.append(first["commit"] and f"commit {first['commit']}")
        return f"Recorded on {first['date']} ({', '.join(filter(None, parts))})."


def check_recordable(profile: str) -> None:
    """Refuse the profile `quick`, whose runs are too small to judge a claim.

    Raises:
        UserError: the profile is that one.
    """
    if profile == QUICK:
        raise UserError(
            f"a run of profile {QUICK!r} judges nothing and is not recorded; use --profile book or "
            "full"
        )


def record_runs(root: Path, papers: Sequence, profile: str) -> Path:
    """Record what the notebooks measured in `benchmarks/results/runs-<profile>-<device>.json`.

    Args:
        root: folder of the book.
        papers: papers with their executions, as the site publishes them.
        profile: profile of the runs.

    Returns:
        The file.

    Raises:
        UserError: as for `check_recordable`, no notebook has an up-to-date run under the profile,
            or the file cannot be written.
    """
    check_recordable(profile)
    runs = [
        Run(
            published.paper.slug,
            published.paper.record.short,
            profile,
            published.results,
            published.claims,
        )
        for published in papers
        if published.current and published.execution.profile == profile and published.results
    ]
    if not runs:
        raise UserError(
            f"no up-to-date run under profile {profile!r}; run `prunebook run --profile {profile}` "
            "first"
        )
    device = runs[0].results[0]["protocol"].get("device", "device")
    name = re.sub("[^a-z0-9]+", "-", f"runs-{profile}-{device}".lower()).strip("-")
    content = {"kind": _KIND, "version": _VERSION, "runs": [asdict(run) for run in runs]}
    return write_atomic(root / _FOLDER / f"{name}.json", json.dumps(content, indent=1) + "\n")


def read_runs(root: Path) -> list[Run]:
    """All recorded runs, file by file; records of other kinds are left out.

    Raises:
        UserError: a file is not JSON, or its runs are not of the form that `record_runs` writes.
    """
    runs = []
    for path in sorted((root / _FOLDER).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("kind") == _KIND:
                runs += _runs_of(content)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{_FOLDER}/{path.name} is no readable record: {error}") from error
    return runs


def _runs_of(content: Mapping[str, Any]) -> list[Run]:
    """The runs in the content of a file of recorded runs.

    Raises:
        ValueError: the file has another version.
        TypeError, KeyError: the content is not of the form that `record_runs` writes.
    """
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']} is not {_VERSION}")
    return [Run(**run) for run in content["runs"]]


def best_runs(root: Path) -> dict[str, Run]:
    """The recorded run of each paper whose verdicts the site shows.

    It is the run of the profile that `papers/profiles.yml` lists last, because that one is the
    largest; of two runs of one profile it is the later one.

    Returns:
        Slug -> run.

    Raises:
        UserError: as for `read_runs` and `load_profiles`.
    """
    ranks = {profile: rank for rank, profile in enumerate(load_profiles(root))}
    best = {}
    for run in read_runs(root):
        shown = best.get(run.slug)
        if shown is None or _rank(run, ranks) > _rank(shown, ranks):
            best[run.slug] = run
    return best


def _rank(run: Run, ranks: Mapping[str, int]) -> tuple[int, str]:
    """The rank of a run: its profile's place in the file, then its day; the highest is shown."""
    return ranks.get(run.profile, -1), run.results[0]["date"]

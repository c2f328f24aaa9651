"""Recorded runs: what notebooks measured on other hardware, kept under `benchmarks/results/`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomic
from ..notebook.claims import QUICK
from .profiles import load_profiles

_KIND = "prunebook-runs"
_VERSION = 1


@dataclass(frozen=True)
class Run:
    """What one notebook measured: the paper, the profile, and its tables and claims as their
    outputs hold them."""

    slug: str
    short: str
    profile: str
    results: list[dict[str, Any]]
    claims: list[dict[str, Any]]

    @property
    def origin(self) -> str:
        """Day, profile, device and commit of the run, as pages give them."""
        first = self.results[0]
        parts = [f"profile {self.profile}", first["protocol"].get("device")]
        parts.append(first["commit"] and f"commit {first['commit']}")
        return f"Recorded on {first['date']} ({', '.join(filter(None, parts))})."


def check_recordable(profile: str) -> None:
    """Refuse the profile that judges nothing.

    Raises:
        UserError: it is that one.
    """
    if profile == QUICK:
        raise UserError(
            f"a run of profile {QUICK!r} judges nothing and is not recorded; use --profile book or "
            "full"
        )


def record_runs(root: Path, papers: Sequence, profile: str) -> Path:
    """Write what the notebooks measured under `profile` to
    `benchmarks/results/runs-<profile>-<device>.json`.

    Args:
        papers: the papers as `read_published` gives them.

    Raises:
        UserError: as `check_recordable`, no notebook has an up-to-date run under the profile, or
            the file cannot be written.
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
    return write_atomic(
        root / "benchmarks" / "results" / f"{name}.json", json.dumps(content, indent=1) + "\n"
    )


def read_runs(root: Path) -> list[Run]:
    """All recorded runs, file by file; records of other kinds are left alone.

    Raises:
        UserError: a file is not JSON, or its runs are not of the form that `record_runs` writes.
    """
    runs = []
    for path in sorted((root / "benchmarks" / "results").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("kind") == _KIND:
                if content["version"] != _VERSION:
                    raise UserError(
                        f"benchmarks/results/{path.name}: version {content['version']} is not "
                        f"{_VERSION}"
                    )
                runs += [Run(**run) for run in content["runs"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"benchmarks/results/{path.name} is no readable record: {error}"
            ) from error
    return runs


def best_runs(root: Path) -> dict[str, Run]:
    """Slug -> the recorded run whose verdicts the site shows: that of the profile which its file
    lists last.

    Raises:
        UserError: as `read_runs` and `load_profiles`.
    """
    ranks = {profile: rank for rank, profile in enumerate(load_profiles(root))}
    best = {}
    for run in read_runs(root):
        known = best.get(run.slug)
        if known is None or _rank(run, ranks) > _rank(known, ranks):
            best[run.slug] = run
    return best


def _rank(run: Run, ranks: Mapping[str, int]) -> tuple[int, str]:
    """What the better of two runs has more of: the later profile, then the later day."""
    return ranks.get(run.profile, -1), run.results[0]["date"]

"""Recorded runs: what notebooks measured, one file a paper, profile and device.

The files are `benchmarks/results/record-<slug>-<profile>-<device>.json`. Verdicts come from them.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..catalog import Paper
from ..catalog.reader import read_notebook
from ..errors import UserError
from ..files import write_atomic
from ..notebook.claims import CLAIM_MIME
from ..notebook.quick import QUICK
from ..notebook.results import RESULTS_MIME
from .executed import current_key, read_execution
from .notebooks import of_paper
from .profiles import load_profiles, other_model_profiles
from .quick_rows import outputs_of, read_quick_run
from .record_form import EARLIER_KIND, EARLIER_VERSION, KIND, VERSION, read_content

FOLDER = "benchmarks/results"
# a list of numbers over several lines, which no text can hold
_NUMBERS = re.compile(r"\[\n\s+(-?\d[^\[\]{}\"]*?)\s+\]")


@dataclass(frozen=True)
class Run:
    """What one notebook measured in one run.

    Attributes:
        slug: slug of the paper.
        short: short name of the paper.
        profile: profile of the run.
        device: what it ran on; None where its tables do not say.
        date: day of the run, `YYYY-MM-DD`.
        commit: commit of the library; None outside its repository.
        versions: package -> version.
        results: its tables, as the notebook's outputs hold them, with the losses by window.
        claims: its claims, as the notebook's outputs hold them.
        quick: fingerprint of the quick run at that time; empty in version 1.
        version: version of the record: 1 was judged under the earlier rule.
        file: name of its file; empty for a run of this build, which is not recorded.
    """

    slug: str
    short: str
    profile: str
    device: str | None
    date: str
    commit: str | None
    versions: dict[str, str]
    results: list[dict[str, Any]]
    claims: list[dict[str, Any]]
    quick: tuple[dict[str, Any], ...] = ()
    version: int = VERSION
    file: str = ""

    @property
    def is_recorded(self) -> bool:
        """Whether the run is on record; else it is one of this build."""
        return bool(self.file)

    @property
    def is_earlier(self) -> bool:
        """Whether the run was judged under the earlier rule of two standard errors."""
        return self.version == EARLIER_VERSION

    @property
    def origin(self) -> str:
        """Day, profile, device and commit of the run, as pages show them."""
        parts = [f"profile {self.profile}", self.device]
        parts.append(self.commit and f"commit {self.commit}")
        return f"Recorded on {self.date} ({', '.join(filter(None, parts))})."


def run_of(
    slug: str,
    short: str,
    profile: str,
    results: Sequence[Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
) -> Run:
    """A run with device, day, commit and versions as its first table tells them.

    Args:
        slug: slug of the paper.
        short: short name of the paper.
        profile: profile of the run.
        results: its tables, at least one.
        claims: its claims.
    """
    first = results[0]
    return Run(
        slug,
        short,
        profile,
        first["protocol"].get("device"),
        first["date"],
        first.get("commit"),
        dict(first.get("versions", {})),
        list(results),
        list(claims),
    )


def check_recordable(
    root: Path, profile: str, papers: Iterable[Paper]
) -> dict[str, list[dict[str, Any]]]:
    """Refuse a run that could not be recorded, before it is made.

    Args:
        root: folder of the book.
        profile: profile of the run.
        papers: the papers that are to be recorded.

    Returns:
        Slug -> fingerprint of the paper's quick run.

    Raises:
        UserError: the profile is `quick`, there is no paper, a paper has no up-to-date quick run,
            or one of its claims does not say whose it is.
    """
    if profile == QUICK:
        raise UserError(
            f"a run of profile {QUICK!r} judges nothing and is not recorded; use --profile book or "
            "full"
        )
    fingerprints = {}
    missing = []
    for paper in papers:
        quick_run = read_quick_run(root, of_paper(paper))
        if quick_run is None:
            missing.append(paper.slug)
            continue
        fingerprints[paper.slug], claims = quick_run
        _check_origins(paper, claims)
    if missing:
        raise UserError(
            f"no up-to-date quick run of {', '.join(missing)}, which a record needs; run "
            f"`prunebook run {' '.join(missing)}` first"
        )
    if not fingerprints:
        raise UserError("nothing to record: none of the names is a paper that runs")
    return fingerprints


def _check_origins(paper: Paper, claims: Iterable[Mapping[str, Any]]) -> None:
    """Refuse claims that do not say whose they are."""
    for claim in claims:
        if claim.get("origin") is None:
            raise UserError(
                f"papers/{paper.slug}.ipynb: claim {claim['key']!r} has no origin; state it under "
                "`claims` in the record and use `pb.check`"
            )


def record_runs(
    root: Path,
    papers: Iterable[Paper],
    profile: str,
    fingerprints: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[Path]:
    """Record what the notebooks of papers measured, one file each.

    A paper without an up-to-date run, e.g. one whose notebook failed, is left out.

    Args:
        root: folder of the book.
        papers: the papers.
        profile: profile of the runs.
        fingerprints: slug -> fingerprint of the quick run, see `check_recordable`.

    Returns:
        The files.

    Raises:
        UserError: no paper has an up-to-date run with a table, a claim has no origin, or a file
            cannot be written.
    """
    paths = []
    for paper in papers:
        results, claims = _outputs(root, paper, profile)
        if not results:
            continue
        _check_origins(paper, claims)
        run = run_of(paper.slug, paper.record.short, profile, results, claims)
        quick = tuple(dict(row) for row in fingerprints[paper.slug])
        paths.append(_write(root, replace(run, quick=quick)))
    if not paths:
        raise UserError(
            f"no up-to-date run with a table under profile {profile!r}, so nothing is recorded"
        )
    return paths


def _outputs(root: Path, paper: Paper, profile: str) -> tuple[list[dict], list[dict]]:
    """The tables and claims of a paper's run under a profile; none if it is not up to date."""
    runnable = of_paper(paper)
    execution = read_execution(root, profile, runnable.name)
    if execution is None or execution.key != current_key(root, profile, runnable):
        return [], []
    notebook = read_notebook(execution.path)
    return outputs_of(notebook, RESULTS_MIME), outputs_of(notebook, CLAIM_MIME)


def _write(root: Path, run: Run) -> Path:
    """Write the record of a run, whole or not at all."""
    words = f"record-{run.slug}-{run.profile}-{run.device or 'device'}"
    name = re.sub("[^a-z0-9]+", "-", words.lower()).strip("-")
    content = {"kind": KIND, "version": VERSION, **asdict(run)}
    del content["file"]
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # The losses of a draw stand on one line.
    text = _NUMBERS.sub(lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
    # What could not be read again is not written.
    read_content(text, f"{FOLDER}/{name}.json")
    return write_atomic(root / FOLDER / f"{name}.json", f"{text}\n")


def record_files(root: Path) -> list[Path]:
    """All JSON files in the folder of records, by name; other kinds of records are among them."""
    return sorted((root / FOLDER).glob("*.json"))


def read_runs(root: Path) -> list[Run]:
    """All recorded runs, file by file; records of other kinds are left out.

    Raises:
        UserError: a file cannot be read or is not of the form of its version.
    """
    runs = []
    for path in record_files(root):
        runs += read_record(path)
    return runs


def read_record(path: Path) -> list[Run]:
    """The runs of one file; none if it is a record of another kind.

    Raises:
        UserError: as for `read_runs`.
    """
    file = f"{FOLDER}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    content = read_content(text, file)
    if content is None:
        return []
    if content["kind"] == EARLIER_KIND:
        names = ("slug", "short", "profile", "results", "claims")
        runs = [run_of(*(run[name] for name in names)) for run in content["runs"]]
        return [replace(run, version=EARLIER_VERSION, file=path.name) for run in runs]
    del content["kind"]
    names = Run.__dataclass_fields__
    fields = {name: value for name, value in content.items() if name in names}
    return [Run(**{**fields, "quick": tuple(fields["quick"]), "file": path.name})]


def runs_by_paper(root: Path) -> dict[str, list[Run]]:
    """Slug -> the recorded runs of the paper, the best one first, see `ranked`.

    Raises:
        UserError: as for `read_runs` and `load_profiles`.
    """
    by_paper: dict[str, list[Run]] = {}
    for run in read_runs(root):
        by_paper.setdefault(run.slug, []).append(run)
    return {slug: ranked(root, runs) for slug, runs in by_paper.items()}


def ranked(root: Path, runs: Iterable[Run]) -> list[Run]:
    """Runs in the order in which their verdicts count, the one with the most power first.

    A run of a profile that is `like` another is on another model and goes last. A run of version 2
    goes before those of version 1, which were judged under the earlier rule. Then goes the profile
    that `papers/profiles.yml` lists last, because it is the largest, and then the later day.

    Args:
        root: folder of the book.
        runs: runs of one paper.

    Raises:
        UserError: as for `load_profiles`.
    """
    ranks = {profile: rank for rank, profile in enumerate(load_profiles(root))}
    others = other_model_profiles(root)

    def rank(run: Run) -> tuple[bool, int, int, str]:
        is_usual = run.profile not in others
        return is_usual, run.version, ranks.get(run.profile, -1), run.date

    return sorted(runs, key=rank, reverse=True)

"""The record of timed kernels, `benchmarks/results/kernels-<device>.json`: one file a device. Needs
no torch.

A case is measured in one run: a process with its versions, its source and its own ceilings.
Measuring a case again replaces it and leaves the others with the run that they come from.
"""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomic

KIND = "prunebook-kernels"
VERSION = 1
FOLDER = "benchmarks/results"
PATTERN = "kernels-*.json"
TIMED = "timed"
WRONG = "wrong"
MISSING = "missing"
FAILED = "failed"
UNTIMED = "untimed"
RIVAL = "rival"
OWN = "own"
CONTROL = "control"
_STATES = (TIMED, WRONG, MISSING, FAILED, UNTIMED)
_ROLES = (RIVAL, OWN, CONTROL)


@dataclass(frozen=True)
class Spread:
    """Median, 20th and 80th percentile, in microseconds a call."""

    median: float
    p20: float
    p80: float


@dataclass(frozen=True)
class Row:
    """One implementation in one case.

    `status`: `timed`; `wrong`, with its error and never timed; `missing` on this machine; `failed`
    with an exception; `untimed`, right, but beside a kernel of ours that is not timed; `reason`
    says why there is no time. `role`: `own`, `control`, or `rival`; only rivals are baselines, and
    a control has no `error`, being compared with nothing. `mode`: `graph` or `eager`. `copies` of
    the operands it rotates over. `device` and `wall` time; `gb_s` and `tflop_s` on the case's
    algorithmic bytes and operations, and their shares of the ceilings. `first_call`: seconds, with
    all compilation.
    """

    name: str
    status: str
    role: str = RIVAL
    reason: str | None = None
    error: float | None = None
    allowed: float | None = None
    note: str | None = None
    first_call: float | None = None
    mode: str | None = None
    copies: int | None = None
    rounds: int | None = None
    device: Spread | None = None
    wall: Spread | None = None
    gb_s: float | None = None
    tflop_s: float | None = None
    of_copy: float | None = None
    of_gemm: float | None = None

    def __post_init__(self):
        if self.status not in _STATES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(_STATES)}")
        if self.role not in _ROLES:
            raise ValueError(f"role {self.role!r} is not one of {', '.join(_ROLES)}")


@dataclass(frozen=True)
class Measured:
    """A case: its kernel, shape, settings and dtype, algorithmic `bytes` and `flop`, the id of its
    run, and a row for each implementation, ours first. `clocks`: MHz, watts and degrees just after
    it, as far as the machine tells."""

    key: str
    kernel: str
    shape: dict[str, int]
    settings: dict[str, Any]
    dtype: str
    bytes: int
    flop: int
    run: str
    date: str
    clocks: dict[str, float] | None
    rows: tuple[Row, ...]

    @property
    def ours(self) -> Row:
        return self.rows[0]

    @property
    def rivals(self) -> tuple[Row, ...]:
        """The baselines."""
        return tuple(row for row in self.rows[1:] if row.role == RIVAL)

    @property
    def others(self) -> tuple[Row, ...]:
        """Other forms of ours, and controls."""
        return tuple(row for row in self.rows[1:] if row.role != RIVAL)

    def mixed(self, row: Row) -> bool:
        """Is only one of the row and ours in a graph? The other's device time then holds gaps
        between launches."""
        return row.mode != self.ours.mode

    def ratio(self, row: Row) -> float:
        """The row's time over that of ours, both timed: on the device, or by the wall clock where
        modes are mixed."""
        if self.mixed(row):
            return row.wall.median / self.ours.wall.median
        return row.device.median / self.ours.device.median

    def speedups(self) -> dict[str, float]:
        """Baseline -> how many times faster ours is, as `ratio` says, below 1 where it loses; of
        those timed."""
        if self.ours.status != TIMED:
            return {}
        return {row.name: self.ratio(row) for row in self.rivals if row.status == TIMED}


@dataclass(frozen=True)
class Run:
    """A process that measured: where, with what, and its ceilings; `left_out`: case -> why it was
    not measured."""

    id: str
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    source: str
    commit: str | None
    seed: int
    budget: float
    seconds: float
    copy_gb_s: float
    gemm_tflop_s: float
    left_out: dict[str, str]

    @property
    def identity(self) -> tuple:
        """What two runs share where a case need not be measured again."""
        return json.dumps([self.machine, self.versions], sort_keys=True), self.source, self.seed


@dataclass
class Record:
    """Runs by id, and cases by key, of one device."""

    runs: dict[str, Run] = field(default_factory=dict)
    cases: dict[str, Measured] = field(default_factory=dict)

    def put(self, case: Measured, run: Run) -> None:
        """Add a case with its run, or replace the case of that key; a run that no case needs any
        more goes."""
        self.cases[case.key] = case
        self.runs[run.id] = run
        needed = {measured.run for measured in self.cases.values()} | {run.id}
        self.runs = {name: known for name, known in self.runs.items() if name in needed}

    def done(self, key: str, run: Run) -> bool:
        """Is the case measured already, by a run of the same identity, with ours right?"""
        known = self.cases.get(key)
        return (
            known is not None
            and known.ours.status == TIMED
            and self.runs[known.run].identity == run.identity
        )

    def write(self, path: Path) -> Path:
        """Write the record whole or not at all."""
        content = {
            "kind": KIND,
            "version": VERSION,
            "runs": [dataclasses.asdict(run) for run in self.runs.values()],
            "cases": [dataclasses.asdict(case) for case in self.cases.values()],
        }
        return write_atomic(path, json.dumps(content, indent=1) + "\n")


def record_name(device: str) -> str:
    """The file of a device: `NVIDIA H100 80GB HBM3` -> `kernels-nvidia-h100-80gb-hbm3.json`."""
    return f"kernels-{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        UserError: it is unreadable, of another kind or version, or names a run that it does not
            hold.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["kind"], content["version"]
        if found != (KIND, VERSION):
            raise UserError(f"{path.name}: kind and version {found} are not {(KIND, VERSION)}")
        runs = {run["id"]: Run(**run) for run in content["runs"]}
        cases = {
            case["key"]: Measured(**case | {"rows": _rows(case["rows"])})
            for case in content["cases"]
        }
        for case in cases.values():
            runs[case.run], case.ours
    except (OSError, ValueError, TypeError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path.name} is no readable record: {type(error).__name__}: {error}"
        ) from error
    return Record(runs, cases)


def _rows(rows: list[dict]) -> tuple[Row, ...]:
    spreads = ("device", "wall")
    return tuple(
        Row(**row | {name: row[name] and Spread(**row[name]) for name in spreads}) for row in rows
    )


def read_records(root: Path, pattern: str = PATTERN) -> dict[str, Record]:
    """All records of timed kernels of the book: file name -> record, in order of the names; errors
    as `read_record`."""
    return {path.name: read_record(path) for path in sorted((root / FOLDER).glob(pattern))}

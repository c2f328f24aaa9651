"""The record of timed kernels: one file `benchmarks/results/kernels-<device>.json` a device.

A case is measured in one run: a process with its versions, its source and its own ceilings.
Measuring a case again replaces it and leaves the others with the run that they come from. Needs no
torch.
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

    Attributes:
        name: name of the implementation.
        status: `timed`; `wrong`, with its error and never timed; `missing` on this machine;
            `failed` with an exception; `untimed`, which is right, but stands beside a kernel of
            ours that is not timed.
        role: `own`, `control` or `rival`. Only rivals are baselines.
        reason: why there is no time.
        error: error of the result; None for a control, which is compared with nothing.
        allowed: largest error of a right result.
        note: what sets the implementation apart.
        first_call: seconds of the first call, with all compilation.
        mode: `graph` or `eager`.
        copies: number of copies of the operands that the graph rotates over.
        rounds: number of samples.
        device: time on the device.
        wall: time by the wall clock.
        gb_s: GB/s on the case's algorithmic bytes.
        tflop_s: TFLOP/s on the case's algorithmic operations.
        of_copy: `gb_s` as a share of its ceiling.
        of_gemm: `tflop_s` as a share of its ceiling.
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
    """A measured case.

    Attributes:
        key: key of the case.
        kernel: name of the kernel family.
        shape: sizes under their names.
        settings: what sets the case apart beside its shape.
        dtype: dtype of the weight.
        bytes: algorithmic bytes.
        flop: algorithmic operations.
        run: id of the run that measured it.
        date: when it was measured, in UTC.
        clocks: MHz, watts and degrees just after it, as far as the machine tells.
        rows: one row for each implementation, ours first.
    """

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
        """Is only one of the row and ours in a graph?

        The device time of the other then holds gaps between launches.
        """
        return row.mode != self.ours.mode

    def ratio(self, row: Row) -> float:
        """The row's time over that of ours, both timed.

        Times are those on the device, or those by the wall clock where modes are mixed.
        """
        if self.mixed(row):
            return row.wall.median / self.ours.wall.median
        return row.device.median / self.ours.device.median

    def speedups(self) -> dict[str, float]:
        """For each timed baseline how many times faster ours is, below 1 where ours loses."""
        if self.ours.status != TIMED:
            return {}
        return {row.name: self.ratio(row) for row in self.rivals if row.status == TIMED}


@dataclass(frozen=True)
class Run:
    """A process that measured.

    Attributes:
        id: unique id.
        date: when it began, in UTC.
        machine: the device, its driver and its sizes.
        versions: versions of the packages.
        source: hash of the sources of kernels and benchmarks.
        commit: commit of the library.
        seed: seed of all operands.
        budget: seconds that were allowed.
        seconds: seconds that it took.
        copy_gb_s: measured GB/s of a copy, the ceiling of bytes.
        gemm_tflop_s: measured TFLOP/s of a bfloat16 product, the ceiling of operations.
        left_out: key of each case that was not measured -> why.
    """

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
        """Two runs of equal identity need not measure a case twice."""
        return json.dumps([self.machine, self.versions], sort_keys=True), self.source, self.seed


@dataclass
class Record:
    """Runs by id, and cases by key, of one device."""

    runs: dict[str, Run] = field(default_factory=dict)
    cases: dict[str, Measured] = field(default_factory=dict)

    def put(self, case: Measured, run: Run) -> None:
        """Add a case with its run, or replace the case of that key.

        A run that no case needs any more is dropped.
        """
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
        kind = (content["kind"], content["version"])
        if kind != (KIND, VERSION):
            raise UserError(f"{path.name}: kind and version {kind} are not {(KIND, VERSION)}")
        runs = {run["id"]: Run(**run) for run in content["runs"]}
        cases = {
            case["key"]: Measured(**case | {"rows": _rows(case["rows"])})
            for case in content["cases"]
        }
        # A case without its run, or without a row of ours, raises a LookupError here.
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
    """All records of timed kernels of the book: file name -> record, in order of the names.

    Raises:
        UserError: a record that `read_record` refuses.
    """
    return {path.name: read_record(path) for path in sorted((root / FOLDER).glob(pattern))}

"""One call: measure cases in order of importance, within a time budget.

Each case is written to the record as soon as it is measured.
"""

import datetime
import hashlib
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError, first_line
from ..notebook.results import library_commit
from .case import Case
from .measure import LostError, Timer, measure
from .record import FAILED, FOLDER, OWN, WRONG, Measured, Record, Row, Run, read_record, record_name

SEED = 0
_PACKAGE = Path(__file__).parents[1]
_VERSIONED = ("prunebook", "torch", "triton", "transformers")


@dataclass(frozen=True)
class Outcome:
    """What a call did.

    Attributes:
        path: file of the record.
        record: the record as it is now.
        run: the run of this call.
        measured: keys of the cases measured now.
        known: keys of the cases that were measured before.
    """

    path: Path
    record: Record
    run: Run
    measured: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def wrong(self) -> list[tuple[str, Row]]:
        """Rows measured now that are wrong, and rows of ours that failed: neither may happen."""
        wrong = []
        for key in self.measured:
            case = self.record.cases[key]
            for row in case.rows:
                if row.status == WRONG or (row.status == FAILED and row is case.ours):
                    wrong.append((key, row))
        return wrong


def chosen(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """The cases of some kernels, the most important first.

    Args:
        cases: all cases.
        only: names of kernels; all kernels if there are none.

    Raises:
        UserError: a kernel that no case has.
    """
    kernels = list(dict.fromkeys(case.kernel for case in cases))
    for name in only:
        if name not in kernels:
            raise UserError(f"--only {name!r} is no kernel; use {', '.join(kernels)}")
    some = [case for case in cases if not only or case.kernel in only]
    return sorted(some, key=lambda case: case.rank)


def bench_kernels(
    root: Path,
    cases: Sequence[Case],
    timer: Timer,
    budget: float,
    tell: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure as many cases as the budget allows.

    Args:
        root: folder of the repository, which holds the records.
        cases: cases in the order in which they are measured.
        timer: the device.
        budget: seconds. A case begins only if the seconds that it takes at most are left.
        tell: called with one line for each case.
        clock: returns seconds.

    Raises:
        UserError: the record that exists cannot be read, or it cannot be written.
    """
    begin = clock()
    machine = timer.machine()
    path = root / FOLDER / record_name(machine["device"])
    record = Record()
    if path.exists():
        record = read_record(path)
    copy_gb_s, gemm_tflop_s = timer.ceilings()
    tell(
        f"{machine['device']}: copy {copy_gb_s:,.0f} GB/s, bfloat16 product {gemm_tflop_s:,.0f} "
        "TFLOP/s"
    )
    now = _now()
    run = Run(
        id=f"{now} {source_hash()}",
        date=now,
        machine=machine,
        versions=_versions(),
        source=source_hash(),
        commit=library_commit(),
        seed=SEED,
        budget=budget,
        seconds=0.0,
        copy_gb_s=copy_gb_s,
        gemm_tflop_s=gemm_tflop_s,
        left_out={},
    )
    measured = []
    known = []
    lost = None
    for case in cases:
        remaining = budget - (clock() - begin)
        if record.done(case.key, run):
            known.append(case.key)
        elif lost or remaining < case.seconds:
            reason = lost or f"takes up to {case.seconds:.0f} s, {max(remaining, 0):.0f} s are left"
            run = replace(run, left_out={**run.left_out, case.key: reason})
        else:
            try:
                rows = measure(case, timer, SEED, run)
            except LostError as error:
                lost = f"the device was lost at {case.key}: {first_line(error)}"
                rows = (Row(case.providers[0].name, FAILED, OWN, reason=first_line(error)),)
            run = replace(run, seconds=clock() - begin)
            clocks = None
            if not lost:
                clocks = timer.clocks()
            record.put(_measured(case, run, clocks, rows), run)
            record.write(path)
            measured.append(case.key)
            tell(f"{case.key}: {rows[0].reason or 'timed'}")
            try:
                if not lost:
                    timer.release()
            except LostError as error:
                lost = f"the device was lost after {case.key}: {first_line(error)}"
    run = replace(run, seconds=clock() - begin)
    if measured:
        record.runs[run.id] = run
        record.write(path)
    return Outcome(path, record, run, tuple(measured), tuple(known))


def _measured(
    case: Case, run: Run, clocks: dict[str, float] | None, rows: tuple[Row, ...]
) -> Measured:
    """The entry of a case in the record."""
    return Measured(
        key=case.key,
        kernel=case.kernel,
        shape=dict(case.shape),
        settings=dict(case.settings),
        dtype=case.dtype,
        bytes=case.work.bytes,
        flop=case.work.flop,
        run=run.id,
        date=_now(),
        clocks=clocks,
        rows=rows,
    )


def source_hash() -> str:
    """Hash of the sources of kernels and benchmarks, twelve hexadecimal digits."""
    digest = hashlib.sha256()
    for folder in ("kernels", "bench"):
        for file in sorted((_PACKAGE / folder).rglob("*.py")):
            digest.update(
                file.relative_to(_PACKAGE).as_posix().encode() + b"\0" + file.read_bytes()
            )
    return digest.hexdigest()[:12]


def _versions() -> dict[str, str]:
    """Versions of the packages that matter, of those that are installed."""
    versions = {}
    for name in _VERSIONED:
        distribution = next(iter(importlib.metadata.distributions(name=name)), None)
        if distribution is not None:
            versions[name] = distribution.version
    return versions


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

"""One call: cases in order of importance, within a time budget, each written to the record as soon
as it is done."""

import datetime
import hashlib
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError, first_line
from ..notebook.claims import library_commit
from .case import Case
from .measure import LostError, Timer, measure
from .record import FAILED, FOLDER, OWN, WRONG, Measured, Record, Row, Run, read_record, record_name

SEED = 0
_PACKAGE = Path(__file__).parents[1]
_VERSIONED = ("prunebook", "torch", "triton", "transformers")


@dataclass(frozen=True)
class Outcome:
    """What a call did: the record and its file, the keys measured now and those known before, and
    its run."""

    path: Path
    record: Record
    run: Run
    measured: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def wrong(self) -> list[tuple[str, Row]]:
        """What must not happen, measured now: rows that are wrong, and rows of ours that failed."""
        cases = [self.record.cases[key] for key in self.measured]
        return [
            (case.key, row)
            for case in cases
            for row in case.rows
            if row.status == WRONG or (row.status == FAILED and row is case.ours)
        ]


def chosen(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """The cases of the kernels `only`, or all, the most important first.

    Raises:
        UserError: a kernel that no case has.
    """
    kernels = list(dict.fromkeys(case.kernel for case in cases))
    for name in only:
        if name not in kernels:
            raise UserError(f"--only {name!r} is no kernel; use {', '.join(kernels)}")
    return sorted(
        (case for case in cases if not only or case.kernel in only), key=lambda case: case.rank
    )


def bench_kernels(
    root: Path,
    cases: Sequence[Case],
    timer: Timer,
    budget: float,
    tell: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure what the budget allows.

    Args:
        cases: in the order in which they are measured.
        timer: the device.
        budget: seconds. A case begins only if what it takes at most is left.
        tell: told a line a case.
        clock: seconds that pass.

    Raises:
        UserError: the record that is there cannot be read, or not be written.
    """
    begin = clock()
    machine = timer.machine()
    path = root / FOLDER / record_name(machine["device"])
    record = read_record(path) if path.exists() else Record()
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
        left = budget - (clock() - begin)
        if record.done(case.key, run):
            known.append(case.key)
        elif lost or left < case.seconds:
            reason = lost or f"takes up to {case.seconds:.0f} s, {max(left, 0):.0f} s are left"
            run = replace(run, left_out={**run.left_out, case.key: reason})
        else:
            try:
                rows = measure(case, timer, SEED, run)
            except LostError as error:
                lost = f"the device was lost at {case.key}: {first_line(error)}"
                rows = (Row(case.providers[0].name, FAILED, OWN, reason=first_line(error)),)
            run = replace(run, seconds=clock() - begin)
            result = Measured(
                case.key,
                case.kernel,
                dict(case.shape),
                dict(case.settings),
                case.dtype,
                case.work.bytes,
                case.work.flop,
                run.id,
                _now(),
                None if lost else timer.clocks(),
                rows,
            )
            record.put(result, run)
            record.write(path)
            measured.append(case.key)
            tell(f"{case.key}: {'timed' if rows[0].device else rows[0].reason}")
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


def source_hash() -> str:
    """Of the sources of the kernels and of what times them: twelve hexadecimal digits."""
    digest = hashlib.sha256()
    for folder in ("kernels", "bench"):
        for file in sorted((_PACKAGE / folder).rglob("*.py")):
            digest.update(
                file.relative_to(_PACKAGE).as_posix().encode() + b"\0" + file.read_bytes()
            )
    return digest.hexdigest()[:12]


def _versions() -> dict[str, str]:
    found = {
        name: next(iter(importlib.metadata.distributions(name=name)), None) for name in _VERSIONED
    }
    return {name: distribution.version for name, distribution in found.items() if distribution}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

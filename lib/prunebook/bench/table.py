"""The short table of a call: a line a case, ours beside its fastest baseline, losing shapes too.
Needs no torch.

Other forms of ours and controls are no baselines; each has a line below.
"""

from collections.abc import Iterable, Mapping

from ..notebook.tables import results_text
from .record import TIMED, Measured, Record, Row, Run, Spread


def describe(values: Mapping) -> str:
    """Shape and settings in one line: `rows 4096, columns 11008, score wanda`."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def microseconds(time: Spread) -> str:
    """`23.4 (23.1 to 24.0)`: median, 20th and 80th percentile."""
    return f"{_short(time.median)} ({_short(time.p20)} to {_short(time.p80)})"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def fastest_baseline(case: Measured) -> Row | None:
    """The rival that ours, timed, is ahead of by least; None if none was timed."""
    return min((row for row in case.rivals if row.status == TIMED), key=case.ratio, default=None)


def speedup_text(case: Measured, row: Row) -> str:
    """`1.50`, or `1.50 by wall` where only one of the two is in a graph."""
    return f"{case.ratio(row):.2f}{' by wall' if case.mixed(row) else ''}"


def share_text(case: Measured, row: Row) -> str:
    """How long ours takes beside it: `ours 60 % of it`."""
    return f"ours {1 / case.ratio(row):.0%} of it{' by wall' if case.mixed(row) else ''}"


def of_ceiling(row: Row) -> str:
    """The share of the ceiling that is nearer: `71 % of copy`."""
    name, share = max((("copy", row.of_copy), ("product", row.of_gemm)), key=lambda pair: pair[1])
    return f"{share:.0%} of {name}"


def summary(record: Record, keys: Iterable[str], run: Run) -> str:
    """The table of the cases `keys`, then what is no baseline, and what was not timed and why, a
    line each."""
    cases = [record.cases[key] for key in keys]
    rows = []
    for case in cases:
        ours = case.ours
        rival = fastest_baseline(case)
        if ours.status == TIMED:
            rows.append(
                {
                    "kernel": case.kernel,
                    "case": describe(case.shape | case.settings),
                    "us": microseconds(ours.device),
                    "ceiling": of_ceiling(ours),
                    "wall us": _short(ours.wall.median),
                    "mode": ours.mode,
                    "fastest baseline": rival and rival.name,
                    "its us": rival and _short(rival.device.median),
                    "its wall us": rival and _short(rival.wall.median),
                    "its mode": rival and rival.mode,
                    "speed-up": rival and speedup_text(case, rival),
                }
            )
    lines = [results_text(rows)] if rows else []
    lines += [
        f"{row.role}: {case.key}: {row.name}: {_short(row.device.median)} us, {row.mode}, "
        f"{share_text(case, row)}"
        for case in cases
        for row in case.others
        if row.status == TIMED
    ]
    lines += [
        f"{row.status}: {case.key}: {row.name}: {row.reason}"
        for case in cases
        for row in case.rows
        if row.status != TIMED
    ]
    lines += [f"left out: {key}: {reason}" for key, reason in run.left_out.items()]
    return "\n".join(lines)

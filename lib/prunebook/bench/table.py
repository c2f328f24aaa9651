"""The short table of a call: one line a case, ours beside its fastest baseline. Needs no torch.

Shapes on which ours loses are shown, too. Other forms of ours and controls are no baselines; each
has a line below the table.
"""

from collections.abc import Iterable, Mapping

from ..notebook.tables import results_text
from .record import TIMED, Measured, Record, Row, Run, Spread


def describe(values: Mapping) -> str:
    """Shape and settings in one line, e.g. `rows 4096, columns 11008, score wanda`."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def microseconds(time: Spread) -> str:
    """Median, 20th and 80th percentile, e.g. `23.4 (23.1 to 24.0)`."""
    return f"{_short(time.median)} ({_short(time.p20)} to {_short(time.p80)})"


def _short(value: float) -> str:
    if value < 1000:
        return f"{value:.1f}"
    return f"{value:,.0f}"


def fastest_baseline(case: Measured) -> Row | None:
    """The rival that is fastest beside ours, which is timed; None if no rival was timed."""
    return min((row for row in case.rivals if row.status == TIMED), key=case.ratio, default=None)


def speedup_text(case: Measured, row: Row) -> str:
    """`1.50`, or `1.50 by wall` where only one of the two is in a graph."""
    return f"{case.ratio(row):.2f}{_clock(case, row)}"


def share_text(case: Measured, row: Row) -> str:
    """How long ours takes beside this row, e.g. `ours 60% of it`."""
    return f"ours {1 / case.ratio(row):.0%} of it{_clock(case, row)}"


def _clock(case: Measured, row: Row) -> str:
    """Says so where wall times are compared."""
    if case.mixed(row):
        return " by wall"
    return ""


def of_ceiling(row: Row) -> str:
    """The share of the nearer ceiling, e.g. `71% of copy`."""
    name, share = max((("copy", row.of_copy), ("product", row.of_gemm)), key=lambda pair: pair[1])
    return f"{share:.0%} of {name}"


def summary(record: Record, keys: Iterable[str], run: Run) -> str:
    """The table of some cases, and below it a line for each row without a place in it.

    Args:
        record: the record that holds the cases.
        keys: keys of the cases.
        run: the run whose left out cases are named.
    """
    cases = [record.cases[key] for key in keys]
    table = [_table_row(case) for case in cases if case.ours.status == TIMED]
    lines = []
    if table:
        lines.append(results_text(table))
    # Other forms of ours and controls, which are no baselines.
    for case in cases:
        for row in case.others:
            if row.status == TIMED:
                time = f"{_short(row.device.median)} us, {row.mode}, {share_text(case, row)}"
                lines.append(f"{row.role}: {case.key}: {row.name}: {time}")
    # What was not timed, and why.
    for case in cases:
        for row in case.rows:
            if row.status != TIMED:
                lines.append(f"{row.status}: {case.key}: {row.name}: {row.reason}")
    lines += [f"left out: {key}: {reason}" for key, reason in run.left_out.items()]
    return "\n".join(lines)


def _table_row(case: Measured) -> dict[str, str | None]:
    """Ours, which is timed, beside its fastest baseline."""
    ours = case.ours
    rival = fastest_baseline(case)
    return {
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

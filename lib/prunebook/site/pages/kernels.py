"""What the page on kernels shows: floors that are computed, and tables and figures of recorded
runs. Needs no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...bench.record import CONTROL, OWN, PATTERN, TIMED, Measured, Record, Row, Run, read_records
from ...bench.table import microseconds, of_ceiling, share_text, speedup_text
from ...bench.work import Work
from ...notebook.tables import display_bundle, results_html, results_text
from ..drawings import kernels as draw

_ROOT = Path(__file__).parents[4]
_OTHERS = {OWN: "ours in another form", CONTROL: "control"}


def records(pattern: str = PATTERN, root: Path = _ROOT) -> dict[str, Record]:
    """The records of the book's `benchmarks/results/`, file name -> record; errors as
    `read_record`."""
    return read_records(root, pattern)


def show_floors(works: Mapping[str, Work], bandwidth: float, arithmetic: float) -> None:
    """The least time of each, computed, at `bandwidth` in bytes and `arithmetic` in operations a
    second."""
    rows = [
        {
            "computation": name,
            "MB": f"{work.bytes / 1e6:,.1f}",
            "GFLOP": f"{work.flop / 1e9:,.1f}" if work.flop else None,
            "floor [us], computed": f"{1e6 * work.floor(bandwidth, arithmetic):,.1f}",
            "bound by": "bytes"
            if work.bytes / bandwidth >= work.flop / arithmetic
            else "arithmetic",
        }
        for name, work in works.items()
    ]
    ceilings = {
        "with a copy of": f"{bandwidth / 1e12:g} TB/s",
        "products of": f"{arithmetic / 1e12:g} TFLOP/s",
    }
    _show(rows, {**ceilings, "floors": "computed, not measured"})


def show_kernel(found: Mapping[str, Record], kernel: str) -> None:
    """Of each record that has cases of the kernel: a table of ours and its baselines, one of what
    is neither, why something is in none, and figures; else how a record is made."""
    having = [
        record
        for record in found.values()
        if any(case.kernel == kernel for case in record.cases.values())
    ]
    if not having:
        text = f"No GPU run of `{kernel}` is recorded yet. On a machine with a GPU, this makes a record:"
        command = f"prunebook bench kernels --only {kernel}"
        display_bundle(
            {
                "text/markdown": f"{text}\n\n```text\n{command}\n```",
                "text/plain": f"{text} {command}",
            }
        )
    for record in having:
        cases = sorted(
            (case for case in record.cases.values() if case.kernel == kernel), key=_place
        )
        runs = [run for run in record.runs.values() if any(case.run == run.id for case in cases)]
        _show([_line(case) for case in cases], _protocol(runs, cases))
        _show_others(cases)
        _show_reasons(cases, runs[-1])
        _show_figures(cases, runs[-1])


def _place(case: Measured) -> tuple:
    """What orders cases: settings, the weight's shape, tokens."""
    return (
        str(case.settings),
        [n for name, n in case.shape.items() if name != "tokens"],
        case.shape.get("tokens", 0),
    )


def _show_figures(cases: Sequence[Measured], run: Run) -> None:
    from IPython.display import display

    timed = [case for case in cases if case.ours.status == TIMED]
    if any(case.speedups() for case in timed):
        display(draw.speedups(timed))
    if timed:
        calculates = all(case.flop for case in timed)
        display(draw.roofline(timed, run) if calculates else draw.bandwidths(timed, run))


def _line(case: Measured) -> dict[str, str | None]:
    """A case as a row: ours, then for each baseline its time, its mode, and how many times that of
    ours it is."""
    ours = case.ours
    line = {"case": draw.short_label(case)}
    if ours.status == TIMED:
        line |= {
            "ours [us] (p20 to p80)": microseconds(ours.device),
            "mode": ours.mode,
            "ceiling": of_ceiling(ours),
            "wall [us]": f"{ours.wall.median:,.0f}",
        }
    else:
        line["ours [us] (p20 to p80)"] = ours.status
    for row in case.rivals:
        line[f"{row.name} [us]"] = (
            _timed(row, f"{speedup_text(case, row)} x") if row.status == TIMED else row.status
        )
    return line


def _timed(row: Row, versus: str) -> str:
    return f"{row.device.median:,.1f} {row.mode}, {versus}"


def _show_others(cases: Sequence[Measured]) -> None:
    """A table of other forms of ours, and of controls, with the share of each that ours takes."""
    lines = []
    for case in cases:
        found = {
            f"{row.name} [us]": _timed(row, share_text(case, row))
            for row in case.others
            if row.status == TIMED
        }
        if found:
            lines.append({"case, no baselines": draw.short_label(case)} | found)
    if lines:
        roles = {row.name: row.role for case in cases for row in case.others}
        names = {role: ", ".join(name for name in roles if roles[name] == role) for role in _OTHERS}
        _show(lines, {_OTHERS[role]: text for role, text in names.items() if text})


def _protocol(runs: Sequence[Run], cases: Sequence[Measured]) -> dict[str, str]:
    """Where and with what: one value, or all that the runs have."""

    def each(*values: str) -> str:
        return ", ".join(dict.fromkeys(values))

    clocks = [case.clocks["sm_mhz"] for case in cases if case.clocks and "sm_mhz" in case.clocks]
    modes = sorted({row.mode for case in cases for row in case.rows if row.mode})
    return {
        "device": each(*(run.machine["device"] for run in runs)),
        "driver": each(*(run.machine["driver"] for run in runs)),
        "torch": each(*(run.versions.get("torch", "?") for run in runs)),
        "triton": each(*(run.versions.get("triton", "?") for run in runs)),
        "copy": each(*(f"{run.copy_gb_s:,.0f} GB/s" for run in runs)),
        "product": each(*(f"{run.gemm_tflop_s:,.0f} TFLOP/s" for run in runs)),
        "clock": f"{min(clocks):.0f} to {max(clocks):.0f} MHz" if clocks else "not told",
        "dtype": each(*(case.dtype for case in cases)),
        "mode": ", ".join(modes) or "not timed",
        "date": each(*(run.date[:10] for run in runs)),
        "commit": each(*(run.commit or f"not told, sources {run.source}" for run in runs)),
    }


def _show_reasons(cases: Sequence[Measured], run: Run) -> None:
    """Notes on the implementations, and why rows have no time or cases no row: a list, each reason
    once."""
    lines = {}
    for case in cases:
        for row in case.rows:
            if row.note:
                lines[f"{row.name}: {row.note}"] = None
            if row.status != TIMED:
                lines[f"{row.name}, {row.status}: {row.reason}"] = None
    kernel = cases[0].kernel
    lines |= {
        f"left out: {key}: {why}": None
        for key, why in run.left_out.items()
        if key.split()[0] == kernel
    }
    if lines:
        text = "\n".join(f"- {line}" for line in lines)
        display_bundle({"text/markdown": text, "text/plain": text})


def _show(rows: list[dict], protocol: Mapping) -> None:
    display_bundle({"text/html": results_html(rows, protocol), "text/plain": results_text(rows)})

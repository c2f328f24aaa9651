"""What the page on kernels shows from its cells: computed floors, and recorded runs. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...bench.record import CONTROL, OWN, PATTERN, TIMED, Measured, Record, Row, Run, read_records
from ...bench.table import microseconds, of_ceiling, share_text, speedup_text
from ...bench.work import Work
from ...notebook.display import display_bundle
from ...notebook.tables import results_html, results_text
from ..drawings import kernels as draw

_ROOT = Path(__file__).parents[4]
_ROLES = {OWN: "ours in another form", CONTROL: "control"}


def records(pattern: str = PATTERN, root: Path = _ROOT) -> dict[str, Record]:
    """The records of the book's `benchmarks/results/`: file name -> record.

    Args:
        pattern: which files are read.
        root: the book's folder.

    Raises:
        UserError: a record cannot be read.
    """
    return read_records(root, pattern)


def show_floors(works: Mapping[str, Work], bandwidth: float, arithmetic: float) -> None:
    """Show the least time that each computation can take, computed and not measured.

    Args:
        works: name of a computation -> its bytes and operations.
        bandwidth: bytes a second.
        arithmetic: operations a second.
    """
    rows = []
    for name, work in works.items():
        bound = "arithmetic"
        if work.bytes / bandwidth >= work.flop / arithmetic:
            bound = "bytes"
        rows.append(
            {
                "computation": name,
                "MB": f"{work.bytes / 1e6:,.1f}",
                "GFLOP": f"{work.flop / 1e9:,.1f}" if work.flop else None,
                "floor [us], computed": f"{1e6 * work.floor(bandwidth, arithmetic):,.1f}",
                "bound by": bound,
            }
        )
    ceilings = {
        "with a copy of": f"{bandwidth / 1e12:g} TB/s",
        "products of": f"{arithmetic / 1e12:g} TFLOP/s",
    }
    _show(rows, {**ceilings, "floors": "computed, not measured"})


def show_kernel(recorded: Mapping[str, Record], kernel: str) -> None:
    """Show what is recorded of a kernel, or how a record is made.

    Each record with cases of the kernel gets a table of ours and its baselines, one of what is
    neither, a list of reasons why something is in none, and figures.

    Args:
        recorded: what `records` returned.
        kernel: the kernel's name, as the cases of a record give it.
    """
    shown = False
    for record in recorded.values():
        cases = [case for case in record.cases.values() if case.kernel == kernel]
        if cases:
            _show_record(record, sorted(cases, key=_place))
            shown = True
    if not shown:
        text = (
            f"No GPU run of `{kernel}` is recorded yet. On a machine with a GPU, this makes a "
            "record:"
        )
        command = f"prunebook bench kernels --only {kernel}"
        display_bundle(
            {
                "text/markdown": f"{text}\n\n```text\n{command}\n```",
                "text/plain": f"{text} {command}",
            }
        )


def _show_record(record: Record, cases: Sequence[Measured]) -> None:
    needed = {case.run for case in cases}
    runs = [run for run in record.runs.values() if run.id in needed]
    _show([_line(case) for case in cases], _protocol(runs, cases))
    _show_others(cases)
    _show_reasons(cases, runs[-1])
    _show_figures(cases, runs[-1])


def _place(case: Measured) -> tuple[str, list[int], int]:
    """What orders cases: settings, the weight's shape, tokens."""
    weight = [size for name, size in case.shape.items() if name != "tokens"]
    return str(case.settings), weight, case.shape.get("tokens", 0)


def _show_figures(cases: Sequence[Measured], run: Run) -> None:
    """Speed-ups, then a roofline where the kernel calculates and bandwidths where it moves."""
    from IPython.display import display

    timed = [case for case in cases if case.ours.status == TIMED]
    if any(case.speedups() for case in timed):
        display(draw.speedups(timed))
    if not timed:
        return
    if all(case.flop for case in timed):
        display(draw.roofline(timed, run))
    else:
        display(draw.bandwidths(timed, run))


def _line(case: Measured) -> dict[str, str | None]:
    """A case as a row: ours, then each baseline with its time, mode and ratio to ours."""
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
        line[f"{row.name} [us]"] = row.status
        if row.status == TIMED:
            line[f"{row.name} [us]"] = _timed(row, f"{speedup_text(case, row)} x")
    return line


def _timed(row: Row, versus: str) -> str:
    return f"{row.device.median:,.1f} {row.mode}, {versus}"


def _show_others(cases: Sequence[Measured]) -> None:
    """A table of other forms of ours, and of controls, with the share of each that ours takes."""
    lines = []
    roles = {}
    for case in cases:
        times = {
            f"{row.name} [us]": _timed(row, share_text(case, row))
            for row in case.others
            if row.status == TIMED
        }
        if times:
            lines.append({"case, no baselines": draw.short_label(case)} | times)
        roles |= {row.name: row.role for row in case.others}
    if lines:
        names = {
            words: ", ".join(name for name in roles if roles[name] == role)
            for role, words in _ROLES.items()
        }
        _show(lines, {words: text for words, text in names.items() if text})


def _protocol(runs: Sequence[Run], cases: Sequence[Measured]) -> dict[str, str]:
    """Where and with what the cases were measured: one value, or all that the runs have."""
    clocks = [case.clocks["sm_mhz"] for case in cases if case.clocks and "sm_mhz" in case.clocks]
    clock = "not told"
    if clocks:
        clock = f"{min(clocks):.0f} to {max(clocks):.0f} MHz"
    modes = set()
    for case in cases:
        modes |= {row.mode for row in case.rows if row.mode}
    return {
        "device": _each(run.machine["device"] for run in runs),
        "driver": _each(run.machine["driver"] for run in runs),
        "torch": _each(run.versions.get("torch", "?") for run in runs),
        "triton": _each(run.versions.get("triton", "?") for run in runs),
        "copy": _each(f"{run.copy_gb_s:,.0f} GB/s" for run in runs),
        "product": _each(f"{run.gemm_tflop_s:,.0f} TFLOP/s" for run in runs),
        "clock": clock,
        "dtype": _each(case.dtype for case in cases),
        "mode": ", ".join(sorted(modes)) or "not timed",
        "date": _each(run.date[:10] for run in runs),
        "commit": _each(run.commit or f"not told, sources {run.source}" for run in runs),
    }


def _each(values: Iterable[str]) -> str:
    """The values in their order, each once."""
    return ", ".join(dict.fromkeys(values))


def _show_reasons(cases: Sequence[Measured], run: Run) -> None:
    """A list of notes on the implementations, and of why something has no time; each once."""
    reasons = []
    for case in cases:
        for row in case.rows:
            if row.note:
                reasons.append(f"{row.name}: {row.note}")
            if row.status != TIMED:
                reasons.append(f"{row.name}, {row.status}: {row.reason}")
    for key, why in run.left_out.items():
        if key.split()[0] == cases[0].kernel:
            reasons.append(f"left out: {key}: {why}")
    if reasons:
        text = "\n".join(f"- {reason}" for reason in dict.fromkeys(reasons))
        display_bundle({"text/markdown": text, "text/plain": text})


def _show(rows: list[dict], protocol: Mapping) -> None:
    display_bundle({"text/html": results_html(rows, protocol), "text/plain": results_text(rows)})

"""The order of the methods at equal sparsity, from the record of `benchmarks/ordering.py`: a figure
and a table."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import UserError

_KIND = "prunebook-ordering"
_VERSION = 1
_FILE = "benchmarks/results/ordering-cpu.json"
_NAME = "ordering.svg"
# Okabe and Ito's palette with a marker each: colour is never the only difference.
_STYLES = (
    ("#999999", "x"),
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#D55E00", "D"),
    ("#CC79A7", "v"),
    ("#56B4E9", "P"),
    ("#000000", "*"),
)
_SECTION = """\
## The order at equal sparsity

```{{figure}} {name}
:alt: Perplexity of each method at each sparsity with error bars; the table below has the numbers
:width: 100%

Perplexity on held-out text, mean over {seeds} calibration draws with one standard deviation as bar. Lower is better.
```

{table}

Mean ± standard deviation over the draws, the lowest of a column in bold; magnitude needs no data, and – stands where a
method is not defined.{options} {protocol} Dense: {dense:.2f}. Recorded on {days}."""


def read_ordering(root: Path) -> dict | None:
    """The record, or None if there is none.

    Raises:
        UserError: it is unreadable or of another version.
    """
    path = root / _FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = record["kind"], record["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{_FILE} is no readable record: {error}") from error
    if found != (_KIND, _VERSION):
        raise UserError(f"{_FILE}: kind and version {found} are not {(_KIND, _VERSION)}")
    return record


def ordering(record: Mapping, slugs: Sequence[str] = ()) -> tuple[str, dict[str, bytes]]:
    """The section as MyST, and its figure: file name -> SVG.

    Args:
        record: what `read_ordering` returned.
        slugs: the papers of the book; a method with the name of one links to it.
    """
    levels = list(dict.fromkeys(row["level"] for row in record["rows"]))
    found: dict[str, dict[str, list[float]]] = {}
    links = {}  # options -> labels
    chosen = {}
    for row in record["rows"]:
        named = ", ".join(f"{name} {value}" for name, value in row["options"].items())
        chosen.setdefault(named, {})[row["label"]] = None
        found.setdefault(row["label"], {}).setdefault(row["level"], []).append(row["perplexity"])
        known = row["method"] in slugs
        links[row["label"]] = (
            f"[{row['label']}](papers/{row['method']}.ipynb)" if known else row["label"]
        )
    best = {
        level: min((np.mean(of[level]), label) for label, of in found.items() if level in of)[1]
        for level in levels
    }
    lines = ["| method | " + " | ".join(levels) + " |", "|---" + "|--:" * len(levels) + "|"]
    for label, of in found.items():
        cells = [_cell(of.get(level), best[level] == label) for level in levels]
        lines.append(f"| {links[label]} | " + " | ".join(cells) + " |")
    days = sorted({row["date"][:10] for row in record["rows"]})
    protocol = (
        "; ".join(
            f"{name.replace('_', ' ')}: {value}" for name, value in record["protocol"].items()
        )
        + "."
    )
    options = "; ".join(
        f"{', '.join(labels)}: {named}" for named, labels in chosen.items() if named
    )
    options = f" Options beside the sparsity: {options}." if options else ""
    text = _SECTION.format(
        name=_NAME,
        table="\n".join(lines),
        seeds=record["protocol"]["seeds"],
        protocol=protocol,
        options=options,
        dense=record["dense"],
        days=days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
    )
    return text, {_NAME: _figure(found, levels, record["dense"])}


def _cell(values: Sequence[float] | None, best: bool) -> str:
    if not values:
        return "–"
    mean = f"{np.mean(values):.2f}" if np.mean(values) < 1000 else f"{np.mean(values):.0f}"
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    text = mean + (f" ± {spread:{'.2g' if spread < 99 else '.0f'}}" if len(values) > 1 else "")
    return f"**{text}**" if best else text


def _figure(
    found: Mapping[str, Mapping[str, Sequence[float]]], levels: Sequence[str], dense: float
) -> bytes:
    """Levels side by side, methods in the order of the record within each; the same bytes for the
    same record."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.add_subplot()
    offsets = np.linspace(-0.3, 0.3, len(found)) if len(found) > 1 else [0.0]
    for number, (label, of) in enumerate(found.items()):
        colour, marker = _STYLES[number % len(_STYLES)]
        x = [levels.index(level) + offsets[number] for level in of]
        spread = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in of.values()]
        axis.errorbar(
            x,
            [np.mean(values) for values in of.values()],
            spread,
            color=colour,
            marker=marker,
            markersize=7,
            linestyle="none",
            capsize=4,
            label=label,
        )
    axis.axhline(dense, color="black", linewidth=0.9, linestyle="--", label="dense")
    axis.set_xticks(range(len(levels)), levels)
    axis.set(
        yscale="log",
        xlabel="removed from the linears inside the blocks",
        ylabel="perplexity (log scale)",
    )
    axis.grid(visible=True, axis="y", which="both", alpha=0.25)
    axis.legend(ncols=2, fontsize="small")
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "prunebook", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()

"""How claims and result rows are shown: HTML for pages and notebooks, text for terminals.

Needs no torch.
"""

import html
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from .contention import BUSY

# verdict -> symbol and words, as every page shows them
VERDICTS = {
    "holds": ("✓", "holds here"),
    "tie": ("≈", "tie"),
    "fails": ("✗", "does not hold here"),
    "undertrained": ("◔", "not given its training"),
    "not_testable": ("○", "not testable"),
    "not_judged": ("·", "not judged in a quick run"),
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def human_bytes(count: float) -> str:
    """A number of bytes in the largest binary unit that keeps it at 1 or above, e.g. `1.5 GiB`."""
    unit = min(max(int(math.log2(max(count, 1)) // 10), 0), len(_UNITS) - 1)
    number = count / 1024**unit
    if unit == 0:
        return f"{number:.0f} B"
    return f"{number:.1f} {_UNITS[unit]}"


# Shown columns of a results table: name -> heading and how a number is written. Columns of other
# names follow with their values as they are.
_COLUMNS = {
    "label": ("Method", str),
    "method": ("Method", str),
    "pattern": ("Pattern", str),
    "seed": ("Seed", str),
    "sparsity": ("Sparsity", "{:.2%}".format),
    "perplexity": ("Perplexity", "{:,.2f}".format),
    "half_width": ("± (95 %)", "{:,.2f}".format),
    "perplexity_ratio": ("Ratio to dense", "{:.3f}".format),
    "beside_best": ("Beside the best", str),
    "kl": ("KL to dense", "{:.4f}".format),
    "agreement": ("Agreement", "{:.2%}".format),
    "accuracy": ("Accuracy", "{:.2%}".format),
    "seconds": ("Seconds", "{:.1f}".format),
    "peak_memory": ("Peak memory", human_bytes),
    "tokens_per_second": ("Tokens/s, generation", "{:.1f}".format),
    "evaluation_tokens_per_second": ("Tokens/s, evaluation", "{:.0f}".format),
    "parameters": ("Parameters", "{:,}".format),
    "nonzero_parameters": ("Not zero", "{:,}".format),
    "bytes_on_disk": ("On disk", human_bytes),
    "flops": ("GFLOPs", lambda count: f"{count / 1e9:,.2f}"),
    "kv_cache_bytes": ("KV cache", human_bytes),
    "latency": ("Latency [ms]", lambda seconds: f"{seconds * 1e3:,.0f}"),
}
# columns that tell nothing apart where all models have one size
_OF_SIZE = ("flops", "kv_cache_bytes", "latency")


def protocol_line(protocol: Mapping) -> str:
    """The protocol as one line: `model smollm2-135m · windows 24`."""
    return " · ".join(
        f"{name.replace('_', ' ')} {value_text(value)}" for name, value in protocol.items()
    )


def value_text(value: Any) -> str:
    """A value of a protocol or a cell as text on one line: a blank line would end a page's HTML."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(value_text, value))
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(value).split())


def verdict_html(verdict: str, count: int | None = None) -> str:
    """The verdict as a coloured badge with its symbol and words.

    Args:
        verdict: a key of `VERDICTS`.
        count: how many claims have it, shown behind the words; None: no number.
    """
    symbol, words = VERDICTS[verdict]
    style = f"pb-verdict pb-{verdict.replace('_', '-')}"
    if count is not None:
        words = f"{words}: {count}"
    return f'<span class="{style}"><span aria-hidden="true">{symbol}</span> {words}</span>'


def results_html(rows: list[Mapping], protocol: Mapping, first: str | None = None) -> str:
    """Result rows as a table that scrolls in its own box where the page is narrow.

    The protocol stands below it. If some rows lack times because the machine was busy, the line of
    the protocol says so once.

    Args:
        rows: column -> value, one mapping a row. A value that has `__html__` is HTML already.
        protocol: what the numbers depend on.
        first: the column that comes before the known ones; None: none does.
    """
    columns = sorted(_columns(rows), key=lambda name: name != first)
    head = "".join(_heading_html(name, rows) for name in columns)
    body = "".join(f"<tr>{_row_html(columns, row)}</tr>" for row in rows)
    line = " · ".join(filter(None, [protocol_line(protocol), *_busy(rows)]))
    return (
        '<div class="pb-scroll" tabindex="0" role="region" aria-label="Results">'
        f'<table class="pb-results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f'</div><p class="pb-protocol">{html.escape(line)}</p>'
    )


def results_text(rows: list[Mapping]) -> str:
    """Result rows as aligned plain text; a last line says so if the machine was too busy to time.

    Args:
        rows: column -> value, one mapping a row.
    """
    columns = _columns(rows)
    table = [[_heading(name) for name in columns]]
    table += [[_shown(name, row.get(name)) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    return "\n".join([*lines, *_busy(rows)])


def _busy(rows: list[Mapping]) -> list[str]:
    """The sentence that some rows were not timed, or nothing."""
    return [BUSY] if any(row.get("machine_busy") for row in rows) else []


def _columns(rows: list[Mapping]) -> list[str]:
    """The columns with a value in some row: the known ones first; a label stands for the method."""
    present = {}
    for row in rows:
        present |= {name: None for name, value in row.items() if value is not None}
    present.pop("machine_busy", None)  # the line of the protocol tells it
    if "label" in present:
        present.pop("method", None)
    if len({row["parameters"] for row in rows if row.get("parameters")}) == 1:
        present = {name: None for name in present if name not in _OF_SIZE}
    known = [name for name in _COLUMNS if name in present]
    return known + [name for name in present if name not in _COLUMNS]


def _heading(name: str) -> str:
    if name in _COLUMNS:
        return _COLUMNS[name][0]
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name in _COLUMNS and is_number(value):
        return _COLUMNS[name][1](value)
    return value_text(value)


def is_number(value: Any) -> bool:
    """Whether a cell holds a number; a truth value is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _style(values: list[Any]) -> str:
    """The class of a cell with one of the values, or of the heading of all, that holds numbers."""
    return ' class="pb-number"' if any(map(is_number, values)) else ""


def _heading_html(name: str, rows: list[Mapping]) -> str:
    style = _style([row.get(name) for row in rows])
    return f'<th scope="col"{style}>{html.escape(_heading(name))}</th>'


def _row_html(columns: list[str], row: Mapping) -> str:
    return "".join(_cell_html(name, row.get(name)) for name in columns)


def _cell_html(name: str, value: Any) -> str:
    content = html.escape(_shown(name, value))
    if hasattr(value, "__html__"):
        content = value.__html__()
    return f"<td{_style([value])}>{content}</td>"

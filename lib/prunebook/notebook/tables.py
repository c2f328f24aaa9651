"""How claims and result rows are shown: HTML for pages and notebooks, text for terminals. Needs no
torch."""

import html
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from .contention import BUSY

# verdict -> symbol and words, as every page shows them
VERDICTS = {
    "holds": ("✓", "holds"),
    "tie": ("≈", "tie (within two standard errors)"),
    "fails": ("✗", "does not hold at this scale"),
    "not_testable": ("○", "not testable here"),
    "not_judged": ("·", "not judged in a quick run"),
}


def human_bytes(count: float) -> str:
    """`count` bytes in the largest binary unit that keeps the number at 1 or above, as `1.5
    GiB`."""
    unit = min(max(int(math.log2(max(count, 1)) // 10), 0), 4)
    number = count / 1024**unit
    return (
        f"{number:.0f} B" if unit == 0 else f"{number:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[unit - 1]}"
    )


# Shown columns of a results table: name -> heading and how a number is written. Others follow as
# they are.
_COLUMNS = {
    "label": ("Method", str),
    "method": ("Method", str),
    "pattern": ("Pattern", str),
    "seed": ("Seed", str),
    "sparsity": ("Sparsity", "{:.2%}".format),
    "perplexity": ("Perplexity", "{:,.2f}".format),
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
_OF_SIZE = ("flops", "kv_cache_bytes", "latency")  # nothing to tell apart in models of one size


def protocol_line(protocol: Mapping) -> str:
    """The protocol as one line: `model smollm2-135m · windows 24`."""
    return " · ".join(
        f"{name.replace('_', ' ')} {_value(value)}" for name, value in protocol.items()
    )


def _value(value) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    # On one line: a blank line would end a page's HTML.
    return f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())


def verdict_html(verdict: str, count: int | None = None) -> str:
    """The verdict as a coloured badge with its symbol and words, and how many claims have it if
    `count` is given."""
    symbol, words = VERDICTS[verdict]
    style = f"pb-verdict pb-{verdict.replace('_', '-')}"
    number = "" if count is None else f": {count}"
    return f'<span class="{style}"><span aria-hidden="true">{symbol}</span> {words}{number}</span>'


def claim_html(record: Mapping) -> str:
    """The box of a claim.

    Args:
        record: as `Claim.to_dict` gives it; where the verdict is one on record, with the text
            `recorded` that says of which run.
    """
    text = {name: html.escape(str(value)) for name, value in record.items() if value is not None}
    rows = [("Paper", f"{text['paper']} <span class='pb-source'>({text['source']})</span>")]
    if "ours" in text:
        quick = record["verdict"] == "not_judged"
        rows.append(("This quick run" if quick else "Ours", text["ours"]))
    rows += [("Why not", text["reason"])] if "reason" in text else []
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    line = html.escape(protocol_line(record["protocol"]))
    style = f"pb-claim pb-{record['verdict'].replace('_', '-')}"
    return (
        f'<section class="{style}" aria-label="Claim: {text["key"]}">'
        f'<p class="pb-statement">{text["statement"]}</p><dl>{body}'
        f"<dt>Verdict</dt><dd>{verdict_html(record['verdict'])}</dd></dl>"
        + (
            f'<p class="pb-protocol pb-recorded">{text["recorded"]}</p>'
            if "recorded" in text
            else ""
        )
        + (f'<p class="pb-protocol">{line}</p>' if line else "")
        + "</section>"
    )


def results_html(rows: list[Mapping], protocol: Mapping, first: str | None = None) -> str:
    """Result rows as a table that scrolls in its own box where the page is narrow, over the
    protocol.

    The column `first`, if given, comes before the known ones. A value that has `__html__` is HTML
    already. Rows with a true `machine_busy` lack times; the line of the protocol says so once.
    """
    columns = sorted(_columns(rows), key=lambda name: name != first)
    head = "".join(
        f'<th scope="col"{_style(*(row.get(name) for row in rows))}>{html.escape(_heading(name))}</th>'
        for name in columns
    )
    body = "".join(
        "<tr>" + "".join(_cell_html(name, row.get(name)) for name in columns) + "</tr>"
        for row in rows
    )
    line = " · ".join(filter(None, [protocol_line(protocol), *_busy(rows)]))
    return (
        '<div class="pb-scroll" tabindex="0" role="region" aria-label="Results">'
        f"<table "
        f'class="pb-results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="pb-protocol">{html.escape(line)}</p>'
    )


def results_text(rows: list[Mapping]) -> str:
    """Result rows as aligned plain text. If rows lack times, a last line says that the machine was
    busy."""
    columns = _columns(rows)
    table = [
        [_heading(name) for name in columns],
        *([_shown(n, row.get(n)) for n in columns] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    return "\n".join([*lines, *_busy(rows)])


def _busy(rows: list[Mapping]) -> list[str]:
    """The sentence that some rows were not timed, or nothing."""
    return [BUSY] if any(row.get("machine_busy") for row in rows) else []


def _columns(rows: list[Mapping]) -> list[str]:
    """The columns with a value in some row: the known ones first; a label stands for the method."""
    present = {name: None for row in rows for name, value in row.items() if value is not None}
    present.pop("machine_busy", None)  # it is told beside the protocol
    if "label" in present:
        present.pop("method", None)
    if len({row["parameters"] for row in rows if row.get("parameters")}) == 1:
        present = {name: None for name in present if name not in _OF_SIZE}
    return [name for name in _COLUMNS if name in present] + [
        name for name in present if name not in _COLUMNS
    ]


def _heading(name: str) -> str:
    if name in _COLUMNS:
        return _COLUMNS[name][0]
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _shown(name: str, value) -> str:
    if value is None:
        return "–"
    if name in _COLUMNS and _is_number(value):
        return _COLUMNS[name][1](value)
    return _value(value)


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _style(*values) -> str:
    """The class of a cell, or of the heading of all `values`, that holds numbers."""
    return ' class="pb-number"' if any(map(_is_number, values)) else ""


def _cell_html(name: str, value) -> str:
    content = value.__html__() if hasattr(value, "__html__") else html.escape(_shown(name, value))
    return f"<td{_style(value)}>{content}</td>"


class _Bundle:
    """One output in several representations, for `IPython.display`."""

    def __init__(self, data: dict[str, Any]):
        self.data = data

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return self.data

    def __repr__(self) -> str:
        return self.data["text/plain"]


def display_bundle(data: dict[str, Any]) -> None:
    """Show `data`, MIME type -> content, as one output of the notebook; elsewhere print its
    `text/plain`."""
    try:
        from IPython.display import display
    except ImportError:
        display = print
    display(_Bundle(data))

"""The card under a paper's title: its record as MyST, with the tags linked to their concepts."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from ..catalog import Record, concept_anchor
from ..render import VERDICTS
from .published import Published

_STATUS_COLOURS = {"tested": "success", "documented": "info", "removed": "warning"}
_NOT_RUN = "This notebook has not been run yet: it shows the record and the text, and no results."
_MISSING = "This notebook has not been run for this build: it shows its code without outputs."
_OLD = "The outputs are from before the last change to this notebook, the library or the profile."


def escape(text: str) -> str:
    """`text` on one line, with every character escaped that MyST could take for markup."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def card(published: Published) -> str:
    """The card of a paper's page, followed by a note where its outputs are missing or old."""
    record = published.paper.record
    fields = {
        "Authors": escape(", ".join(record.authors)),
        "Paper": " ".join(_paper(record)),
        "Code": _code(record),
        "Links": " · ".join(f"[{escape(link.label)}](<{link.url}>)" for link in record.links),
        **{name.title(): f"{tags(record, name)}{_listed(record, name)}" for name in record.facets()},
        "Corrected": _bullets(map(_correction, record.corrections)),
        "Runs in": _bullets(map(_runtime, record.runs_in)),
        "Claims": claim_counts(published.claims),
        "Executed": _run(published),
        "More": f"{{ref}}`Challenges <{record.challenge}>` · "
        f"{{download}}`Download the notebook </_notebooks/{record.slug}.ipynb>`",
    }
    lines = [f":{name}: {value}" for name, value in fields.items() if value]
    body = "\n".join([escape(record.takeaway), "", *lines])
    return f"::::{{card}}\n:class-card: pb-card\n\n{body}\n::::\n{_note(published)}"


def tags(record: Record, facet: str) -> str:
    """The values of a facet as badges that link to their concepts, and its detail."""
    content = record.facets()[facet]
    badges = [f"{{bdg-ref-primary-line}}`{value} <{concept_anchor(facet, value)}>`" for value in content.values]
    return " ".join(badges + ([f"({escape(content.detail)})"] if content.detail else []))


def claim_counts(claims: Iterable[Mapping], words: bool = True) -> str:
    """How many claims have each verdict, as `✓ holds: 3 · ≈ tie: 1`; empty without claims.

    Args:
        words: False leaves the symbols and the numbers.
    """
    counts = Counter(claim["verdict"] for claim in claims)
    return " · ".join(
        f"{symbol}\N{NO-BREAK SPACE}{text + ': ' if words else ''}{counts[verdict]}"
        for verdict, (symbol, text) in VERDICTS.items()
        if counts[verdict]
    )


def _paper(record: Record) -> list[str]:
    venue = f"{record.venue.name} {record.venue.year}"
    kind = "" if record.venue.kind == "conference" else f" ({record.venue.kind})"
    parts = [f"{{bdg-primary}}`{venue.replace('`', '')}{kind}`"]
    if record.arxiv:
        parts.append(f"[arXiv {record.arxiv}](https://arxiv.org/abs/{record.arxiv})")
    if record.reviews_url:
        parts.append(f"[OpenReview](<{record.reviews_url}>)")
    return parts


def _code(record: Record) -> str:
    if record.code is None:
        return "none published"
    kind = "official" if record.code.official else "community"
    licence = record.code.license or "no licence stated"
    return f"[{kind}](<{record.code.url}>) ({escape(licence)})"


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"\n  - {line}" for line in lines)


def _runtime(entry) -> str:
    badge = f"{{bdg-{_STATUS_COLOURS[entry.status]}}}`{entry.status}`"
    note = f": {escape(entry.note)}" if entry.note else ""
    return f"{escape(entry.runtime)} {badge} {entry.date.isoformat()}{note}{_source(entry)}"


def _listed(record: Record, facet: str) -> str:
    """What the list that the book grew out of says of a facet, where the record says something else."""
    listed = [entry.listed for entry in record.corrections if entry.field == f"tags.{facet}"]
    return "".join(f" *(listed as: {escape(text)})*" for text in listed)


def _correction(entry) -> str:
    field = entry.field.removeprefix("tags.")
    return f"{field}, listed as “{escape(entry.listed)}”: {escape(entry.reason)}{_source(entry)}"


def _source(entry) -> str:
    return f" [source](<{entry.source}>)" if entry.source else ""


def _run(published: Published) -> str:
    """How the outputs came about: profile, day, time, and the hardware, versions and commit of the first table."""
    run = published.execution
    if run is None:
        return ""
    parts = [f"profile {run.profile}", run.date, f"{run.seconds:.0f} s"]
    if published.results:
        first = published.results[0]
        parts += [first["protocol"].get("device"), *(f"{name} {text}" for name, text in first["versions"].items())]
        parts += [first["commit"] and f"commit {first['commit']}"]
    return escape(", ".join(filter(None, parts)))


def _note(published: Published) -> str:
    if published.execution is None:
        text = _NOT_RUN if published.paper.record.method is None else _MISSING
    elif not published.current:
        text = _OLD
    else:
        return ""
    return f"\n:::{{note}}\n{text}\n:::\n"

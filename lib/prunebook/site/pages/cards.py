"""The card under a paper's title: its record as MyST, with the tags linked to their concepts."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from ...catalog import Address, Record, concept_anchor
from ...notebook.claims import QUICK
from ...notebook.tables import VERDICTS, verdict_html
from ..buttons import buttons
from ..published import Published, PublishedPage

_STATUS_COLOURS = {"tested": "success", "documented": "info", "removed": "warning"}
_NOT_RUN = "This notebook has not been run yet: it shows the record and the text, and no results."
_MISSING = "The code of this page has not been run for this build: it is shown without outputs."
_OLD = "The outputs are from before the last change to this page, the library or the profile."
_QUICK = (
    "Tables and figures of this page are from a quick run, on a few short windows of text: it "
    "shows that all of the code runs, and judges nothing."
)


def escape(text: str) -> str:
    """`text` on one line, with every character escaped that MyST could take for markup."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def card(published: Published, address: Address) -> str:
    """The card of a paper's page, followed by a note where its outputs are missing or old.

    Args:
        address: the book's public addresses, which the buttons lead to.
    """
    record = published.paper.record
    fields = {
        "Authors": escape(", ".join(record.authors)),
        "Paper": " ".join(_paper(record)),
        "Code": _code(record),
        "Links": " · ".join(f"[{escape(link.label)}](<{link.url}>)" for link in record.links),
        **{
            name.title(): f"{tags(record, name)}{_listed(record, name)}" for name in record.facets()
        },
        "Corrected": _bullets(map(_correction, record.corrections)),
        "Runs in": _bullets(map(_runtime, record.runs_in)),
        "Claims": claim_badges(published.claims) or _no_claims(published),
        "Executed": _run(published),
        "Verdicts": escape(published.record.origin) if published.record else "",
        "Notebook": f"{buttons(record.slug, address)} · "
        f"{{download}}`Download "
        f"</_notebooks/{record.slug}.ipynb>`",
        "More": f"{{ref}}`Challenges <{record.challenge}>` · {{doc}}`Scoreboard </scoreboard>`",
    }
    lines = [f":{name}: {value}" for name, value in fields.items() if value]
    body = "\n".join([escape(record.takeaway), "", *lines])
    note = _NOT_RUN if record.method is None else state_of_outputs(published)
    return f"::::{{card}}\n:class-card: pb-card\n\n{body}\n::::\n" + (
        f"\n{admonition(note)}\n" if note else ""
    )


def tags(record: Record, facet: str) -> str:
    """The values of a facet as badges that link to their concepts, and its detail."""
    content = record.facets()[facet]
    badges = [
        f"{{bdg-ref-primary-line}}`{value} <{concept_anchor(facet, value)}>`"
        for value in content.values
    ]
    return " ".join(badges + ([f"({escape(content.detail)})"] if content.detail else []))


def claim_badges(claims: Iterable[Mapping]) -> str:
    """A badge for each verdict that some claim has, with their number, as HTML; empty without
    claims."""
    counts = Counter(claim["verdict"] for claim in claims)
    return " ".join(
        verdict_html(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]
    )


def state_of_outputs(published: Published | PublishedPage) -> str:
    """What a reader must know of the outputs: that they are missing, old, or of a quick run; else
    empty."""
    if published.execution is None:
        return _MISSING
    notes = [] if published.current else [_OLD]
    if published.execution.profile == QUICK:
        notes.append(_QUICK)
    return " ".join(notes)


def admonition(text: str) -> str:
    """A note of the page, as MyST."""
    return f":::{{note}}\n{text}\n:::"


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
    """What the list that the book grew out of says of a facet, where the record says something
    else."""
    listed = [entry.listed for entry in record.corrections if entry.field == f"tags.{facet}"]
    return "".join(f" *(listed as: {escape(text)})*" for text in listed)


def _correction(entry) -> str:
    field = entry.field.removeprefix("tags.")
    return f"{field}, listed as “{escape(entry.listed)}”: {escape(entry.reason)}{_source(entry)}"


def _source(entry) -> str:
    return f" [source](<{entry.source}>)" if entry.source else ""


def _no_claims(published: Published) -> str:
    return (
        "{bdg-secondary-line}`"
        + ("not run yet" if published.execution is None else "none stated")
        + "`"
    )


def _run(published: Published) -> str:
    """How the outputs came about: profile, day, time, and the hardware, versions and commit of the
    first table."""
    run = published.execution
    if run is None:
        return ""
    parts = [f"profile {run.profile}", run.date, f"{run.seconds:.0f} s"]
    if published.results:
        first = published.results[0]
        parts += [
            first["protocol"].get("device"),
            *(f"{name} {text}" for name, text in first["versions"].items()),
        ]
        parts += [first["commit"] and f"commit {first['commit']}"]
    return escape(", ".join(filter(None, parts)))

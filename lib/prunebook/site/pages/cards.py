"""The card under a paper's title: its record as MyST, with the tags linked to their concepts."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from ...catalog import Address, Record, concept_anchor
from ...notebook.quick import QUICK
from ...notebook.tables import VERDICTS, verdict_html
from ..buttons import buttons
from ..published import Published, PublishedPage
from ..verdicts import is_own

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
        published: the paper with its notebook.
        address: the book's public addresses, which the buttons lead to.
    """
    record = published.paper.record
    fields = _fields(published, address)
    lines = [f":{name}: {value}" for name, value in fields.items() if value]
    body = "\n".join([escape(record.takeaway), "", *lines])
    text = f"::::{{card}}\n:class-card: pb-card\n\n{body}\n::::\n"
    note = _NOT_RUN
    if record.is_implemented:
        note = state_of_outputs(published)
    if note:
        text += f"\n{admonition(note)}\n"
    return text


def _fields(published: Published, address: Address) -> dict[str, str]:
    """Heading -> content of each line of the card; lines without content are not shown."""
    record = published.paper.record
    facets = {
        name.title(): f"{tags(record, name)}{_listed(record, name)}" for name in record.facets()
    }
    download = f"{{download}}`Download </_notebooks/{record.slug}.ipynb>`"
    return {
        "Authors": escape(", ".join(record.authors)),
        "Paper": " ".join(_paper(record)),
        "Code": _code(record),
        "Links": " · ".join(f"[{escape(link.label)}](<{link.url}>)" for link in record.links),
        **facets,
        "Corrected": _bullets(map(_correction, record.corrections)),
        "Runs in": _bullets(map(_runtime, record.runs_in)),
        "Claims": claim_badges(filter(is_own, published.claims)) or _no_claims(published),
        "Asked beyond": claim_badges(claim for claim in published.claims if not is_own(claim)),
        "Executed": _run(published),
        "Verdicts": _records(published),
        "Notebook": f"{buttons(record.slug, address)} · {download}",
        "More": f"{{ref}}`Challenges <{record.challenge}>` · {{doc}}`Scoreboard </scoreboard>`",
    }


def _records(published: Published) -> str:
    """The recorded runs of the paper, the one with the most power first."""
    lines = []
    for run in published.runs:
        if run.is_recorded:
            line = run.origin
            if run.is_earlier:
                line += " Judged under the earlier rule."
            if run.file in published.changes:
                line += f" Changed since it was recorded: {published.changes[run.file]}."
            lines.append(escape(line))
    if len(lines) == 1:
        return lines[0]
    return _bullets(lines)


def tags(record: Record, facet: str) -> str:
    """The values of a facet as badges that link to their concepts, and its detail."""
    content = record.facets()[facet]
    parts = [
        f"{{bdg-ref-primary-line}}`{value} <{concept_anchor(facet, value)}>`"
        for value in content.values
    ]
    if content.detail:
        parts.append(f"({escape(content.detail)})")
    return " ".join(parts)


def claim_badges(claims: Iterable[Mapping]) -> str:
    """A badge for each verdict that some claim has, with their number, as HTML.

    Without claims it is empty.
    """
    counts = Counter(claim["verdict"] for claim in claims)
    return " ".join(
        verdict_html(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]
    )


def state_of_outputs(published: Published | PublishedPage) -> str:
    """What a reader must know of the outputs: that they are missing, old, or of a quick run.

    Otherwise it is empty.
    """
    if published.execution is None:
        return _MISSING
    notes = []
    if not published.current:
        notes.append(_OLD)
    if published.execution.profile == QUICK:
        notes.append(_QUICK)
    return " ".join(notes)


def admonition(text: str) -> str:
    """A note of the page, as MyST."""
    return f":::{{note}}\n{text}\n:::"


def _paper(record: Record) -> list[str]:
    """The venue, and links to the paper and its reviews."""
    venue = f"{record.venue.name} {record.venue.year}".replace("`", "")
    if record.venue.kind != "conference":
        venue += f" ({record.venue.kind})"
    parts = [f"{{bdg-primary}}`{venue}`"]
    if record.arxiv:
        parts.append(f"[arXiv {record.arxiv}](https://arxiv.org/abs/{record.arxiv})")
    if record.reviews_url:
        parts.append(f"[OpenReview](<{record.reviews_url}>)")
    return parts


def _code(record: Record) -> str:
    """A link to the paper's code, with its licence."""
    if record.code is None:
        return "none published"
    kind = "official" if record.code.official else "community"
    licence = record.code.license or "no licence stated"
    return f"[{kind}](<{record.code.url}>) ({escape(licence)})"


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"\n  - {line}" for line in lines)


def _runtime(entry) -> str:
    """A runtime that the paper's method runs in, with its status."""
    badge = f"{{bdg-{_STATUS_COLOURS[entry.status]}}}`{entry.status}`"
    note = ""
    if entry.note:
        note = f": {escape(entry.note)}"
    return f"{escape(entry.runtime)} {badge} {entry.date.isoformat()}{note}{_source(entry)}"


def _listed(record: Record, facet: str) -> str:
    """What the list that the book grew out of says of a facet, where the record differs."""
    listed = [entry.listed for entry in record.corrections if entry.field == f"tags.{facet}"]
    return "".join(f" *(listed as: {escape(text)})*" for text in listed)


def _correction(entry) -> str:
    """A field that the list had otherwise, and why the record differs."""
    field = entry.field.removeprefix("tags.")
    return f"{field}, listed as “{escape(entry.listed)}”: {escape(entry.reason)}{_source(entry)}"


def _source(entry) -> str:
    if not entry.source:
        return ""
    return f" [source](<{entry.source}>)"


def _no_claims(published: Published) -> str:
    """The badge of a paper without claims."""
    words = "not run yet" if published.execution is None else "none stated"
    return f"{{bdg-secondary-line}}`{words}`"


def _run(published: Published) -> str:
    """How the outputs came about: profile, day and time of the run.

    Hardware, versions and commit are those of the first table.
    """
    execution = published.execution
    if execution is None:
        return ""
    parts = [f"profile {execution.profile}", execution.date, f"{execution.seconds:.0f} s"]
    if published.results:
        first = published.results[0]
        parts.append(first["protocol"].get("device"))
        parts += [f"{name} {text}" for name, text in first["versions"].items()]
        parts.append(first["commit"] and f"commit {first['commit']}")
    return escape(", ".join(filter(None, parts)))

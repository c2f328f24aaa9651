"""The verdicts that pages and boards show: for each claim that of the run with the most power."""

import copy
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from ..catalog import Record, read_papers
from ..notebook.claim_boxes import claim_html
from ..notebook.claims import CLAIM_MIME, NOT_JUDGED
from ..runs.record_check import read_all
from ..runs.records import Run, ranked

Claim = Mapping[str, Any]
# What of a protocol says where a run was made, and not what was measured.
_OF_MACHINE = ("device", "peak_memory")
_ROUNDING = 1e-3  # nats per token
_STATED = ("statement", "paper", "source", "origin")


def is_own(claim: Claim) -> bool:
    """Is the claim one that the paper makes itself? One that does not say whose it is counts so."""
    return claim.get("origin") in (None, "paper")


def counts_of(claims: Iterable[Claim]) -> Counter:
    """Verdict -> number of the paper's own claims that have it."""
    return Counter(claim["verdict"] for claim in claims if is_own(claim))


def recorded_counts(root: Path) -> dict[str, Counter]:
    """Slug -> counts of the paper's own claims by verdict, from the recorded runs alone.

    A record that cannot be read is left out: `prunebook check` names it.

    Raises:
        UserError: a notebook or the profiles cannot be read.
    """
    runs, _ = read_all(root)
    counts = {}
    for paper in read_papers(root):
        own = ranked(root, [run for run in runs if run.slug == paper.slug])
        counts[paper.slug] = counts_of(shown_claims([], own, paper.record))
    return counts


def shown_claims(
    claims: Sequence[Claim],
    runs: Sequence[Run],
    record: Record | None = None,
    changes: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The claims of a paper, each with the verdict of the run with the most power.

    Args:
        claims: the claims in the outputs of the page; empty for a notebook without outputs.
        runs: runs that judge, the one with the most power first.
        record: the paper's record, which states its claims; None where it states none.
        changes: file of a recorded run -> what has changed since.

    Returns:
        The page's claims in their order, then those that only runs have. A claim that the paper's
        record no longer states is left out. A claim with a verdict has all of them as the list
        `verdicts`; one whose verdict is on record has its origin as the text `recorded`.
    """
    stated = {}
    if record is not None:
        stated = {claim.key: _as_stated(claim) for claim in record.claims}
    own = {claim["key"]: dict(claim) for claim in claims}
    of_runs: dict[str, list[tuple[Run, Claim]]] = {}
    for run in runs:
        for claim in run.claims:
            of_runs.setdefault(claim["key"], []).append((run, claim))
    shown = []
    for key in dict.fromkeys([*own, *stated, *of_runs]):
        known = key in own or key in stated or not stated
        page_claim = own.get(key) or stated.get(key)
        if known:
            shown.append(_shown(page_claim, of_runs.get(key, []), changes or {}))
    return [claim for claim in shown if claim is not None]


def _as_stated(claim: Any) -> dict[str, Any]:
    """A claim of the paper's record, as a notebook's output would hold it without a verdict."""
    fields = {
        "key": claim.key,
        "statement": claim.statement,
        "paper": claim.number,
        "source": claim.source,
        "origin": claim.origin,
        "ours": None,
        "protocol": {},
    }
    if claim.not_testable is None:
        return fields
    return {**fields, "verdict": "not_testable", "reason": claim.not_testable, "ruled_out": True}


def _shown(
    page_claim: Claim | None, of_runs: Sequence[tuple[Run, Claim]], changes: Mapping[str, str]
) -> dict[str, Any] | None:
    """One claim with the verdict to show; None where the page and all runs say nothing of it.

    Args:
        page_claim: the claim of the page, or as the paper's record states it.
        of_runs: runs with what each says of the claim, the one with the most power first.
        changes: as for `shown_claims`.
    """
    page = dict(page_claim or {})
    # What the paper's record rules out was not measured as the claim means it.
    if page.pop("ruled_out", False):
        return page
    valid = list(_valid(page, of_runs))
    judged = [(run, claim) for run, claim in valid if claim["verdict"] != "not_testable"]
    # Another model than that of the first run decides nothing.
    own = [each for each in judged if _model(*each) == _model(*valid[0])]
    best = (own or valid)[:1]
    if not best:
        if "verdict" in page:
            return page
        if of_runs and page:
            return {**page, "verdict": NOT_JUDGED}
        return None
    ((run, claim),) = best
    texts = {name: page[name] for name in _STATED if page.get(name)}
    shown = {**claim, **texts, "verdicts": [_verdict(*each) for each in judged]}
    if run.is_recorded:
        shown["recorded"] = " ".join(_remarks(run, claim, changes))
    return shown


def _valid(page: Claim, of_runs: Sequence[tuple[Run, Claim]]) -> Iterator[tuple[Run, Claim]]:
    """The runs whose verdict may stand beside the page's statement, with what each says.

    Args:
        page: as `page_claim` of `_shown`; empty where the page has none.
        of_runs: as for `_shown`.
    """
    judged_anew = {_model(run, claim) for run, claim in of_runs if not run.is_earlier}
    for run, claim in of_runs:
        # Another statement was judged then: its verdict is none on this one.
        if page and not _same_words(page["statement"], claim["statement"]):
            continue
        # The earlier rule does not count beside the present one on the same model.
        if run.is_earlier and _model(run, claim) in judged_anew:
            continue
        # The earlier rule did not know of missing training, which the page tells now.
        if run.is_earlier and page.get("undertrained") and claim["verdict"] == "fails":
            claim = {**claim, "verdict": "undertrained"}
        yield run, claim


def _model(run: Run, claim: Claim) -> str | None:
    """The model that a claim was judged on; that of the run's first table if it names none."""
    return claim["protocol"].get("model") or run.results[0]["protocol"].get("model")


def _same_words(text: str, other: str) -> bool:
    """Whether two texts are equal but for white space."""
    return text.split() == other.split()


def _verdict(run: Run, claim: Claim) -> dict[str, Any]:
    """One verdict on a claim, with the run that it is of."""
    return {
        "verdict": claim["verdict"],
        "profile": run.profile,
        "device": run.device,
        "model": _model(run, claim),
        "windows": _windows(claim),
        "date": run.date,
        "version": run.version,
        "recorded": run.is_recorded,
    }


def _windows(claim: Claim) -> int | None:
    """The number of held-out windows that a verdict rests on; None where it is not known."""
    gap = claim.get("gap") or {}
    # Other things than windows may be compared, e.g. prompts.
    if "windows" in gap and gap.get("columns", "windows") == "windows":
        return gap["windows"]
    count = re.match(r"(\d+) x ", str(claim["protocol"].get("evaluation", "")))
    if count:
        return int(count[1])
    return None


def _remarks(run: Run, claim: Claim, changes: Mapping[str, str]) -> Iterator[str]:
    """What a reader must know of a verdict on record, one sentence each."""
    yield run.origin
    if run.is_earlier:
        evaluation = claim["protocol"].get("evaluation", "evaluation not named")
        yield f"Recorded under the earlier rule: two standard errors, {evaluation}."
    if run.file in changes:
        yield f"Changed since it was recorded: {changes[run.file]}."


def contradictions(slug: str, runs: Iterable[Run], changes: Mapping[str, str]) -> list[str]:
    """Where a run of this build contradicts a record beyond noise, one line each.

    Compared are gaps of the same claim under the same protocol, whatever machine each was made on.
    A record that has changed since, or of the earlier rule, contradicts nothing.

    Args:
        slug: slug of the paper.
        runs: its runs, those of this build among them.
        changes: file of a recorded run -> what has changed since.
    """
    own = [run for run in runs if not run.is_recorded]
    records = [run for run in runs if run.is_recorded and not run.is_earlier]
    lines = []
    for run in own:
        gaps = {claim["key"]: claim for claim in run.claims if claim.get("gap")}
        for record in records:
            if record.file in changes:
                continue
            for claim in record.claims:
                ours = gaps.get(claim["key"])
                if ours and claim.get("gap") and _differ(ours, claim):
                    lines.append(
                        f"papers/{slug}: claim {claim['key']!r}: this build's run has "
                        f"{_number(ours)}, {record.file} has {_number(claim)}; they differ by "
                        "more than noise"
                    )
    return lines


def _differ(ours: Claim, recorded: Claim) -> bool:
    """Do two gaps under one protocol differ by more than their intervals together?"""
    if _what(ours["protocol"]) != _what(recorded["protocol"]):
        return False
    distance = abs(ours["gap"]["mean"] - recorded["gap"]["mean"])
    noise = math.hypot(ours["gap"]["half_width"], recorded["gap"]["half_width"])
    # Processors differ in last digits, which no interval of two equal draws knows of.
    return distance > noise + _ROUNDING


def _what(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol without what says where the run was made."""
    return {name: value for name, value in protocol.items() if name not in _OF_MACHINE}


def _number(claim: Claim) -> str:
    """The gap of a claim with its interval."""
    gap = claim["gap"]
    return f"{gap['mean']:+.4f} ± {gap['half_width']:.4f}"


def with_verdicts(
    notebook: nbformat.NotebookNode, claims: Sequence[Claim]
) -> nbformat.NotebookNode:
    """A copy of an executed notebook whose boxes show `claims`.

    Claims without a box follow the last box; a notebook without boxes stays as it is.
    """
    changed = copy.deepcopy(notebook)
    waiting = {claim["key"]: claim for claim in claims}
    last_cell = None
    for cell in changed.cells:
        for output in cell.get("outputs", []):
            if CLAIM_MIME in output.get("data", {}):
                last_cell = cell
                claim = waiting.pop(output.data[CLAIM_MIME]["key"], None)
                if claim is not None:
                    output.data |= _bundle(claim)
    if last_cell is not None:
        for claim in waiting.values():
            last_cell.outputs.append(nbformat.v4.new_output("display_data", _bundle(claim)))
    return changed


def _bundle(claim: Claim) -> dict[str, Any]:
    return nbformat.from_dict({CLAIM_MIME: dict(claim), "text/html": claim_html(claim)})

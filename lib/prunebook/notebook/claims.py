"""A paper's claim, checked: what the paper says, what we measured, and a verdict. Needs no torch.

`check` takes a claim from the paper's record and adds what we measured. It shows a box and leaves
a record beside it in the notebook's output, of the type `CLAIM_MIME`, from which the scoreboard is
built. `claim`, `claim_speed` and `not_testable` do so for a claim that the page itself writes out.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .display import ShownRecord, display_record
from .gaps import Gap
from .quick import is_quick_run
from .results import current_protocol, plain_protocol
from .speedup import Speedup
from .stated import Statement, find_stated
from .tables import VERDICTS, claim_html

CLAIM_MIME = "application/vnd.prunebook.claim.v1+json"
NOT_JUDGED = "not_judged"
_DECIDED = ("holds", "tie", "fails")


@dataclass(frozen=True)
class Claim(ShownRecord):
    """A claim with its verdict.

    Attributes:
        key: short name, unique in the paper.
        statement: the claim, in our own words.
        paper: the paper's number, as text.
        source: table, figure or section that it stands in.
        ours: our number, as text; None where the claim is not testable.
        verdict: a key of `VERDICTS`.
        protocol: what our number depends on.
        reason: why the claim is not testable; None where it is.
        gap: numbers of the `Gap` that gave the verdict, if one did.
        origin: `paper` for a claim of the paper, `ours` for what we asked beyond; None where the
            page does not say.
    """

    key: str
    statement: str
    paper: str
    source: str
    ours: str | None
    verdict: str
    protocol: dict[str, Any]
    reason: str | None = None
    gap: dict[str, float] | None = None
    origin: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        ours = self.reason
        if self.ours is not None:
            ours = f"ours: {self.ours}"
        return (
            f"{self.statement}\n  paper: {self.paper} ({self.source})\n  {ours}\n  verdict: "
            + " ".join(VERDICTS[self.verdict])
        )


def check(
    key: str,
    *,
    ours: str = "",
    verdict: Gap | Speedup | bool | str | None = None,
    protocol: Mapping | None = None,
    paper: str | None = None,
    not_testable: str | None = None,
    at_least: float = 1.0,
    requires: bool = True,
) -> Claim:
    """Show a claim of the paper's record beside what we measured, and record both.

    A claim that the record says is not testable is shown by its key alone. A quick run judges
    nothing: the verdict is then `not_judged`, whatever was measured.

    Args:
        key: key of the claim in the record.
        ours: our number, as text made from measured values; may be empty for a `Speedup`, which
            adds its own numbers.
        verdict: a `Gap`, a truth value, one of "holds", "tie", "fails", or a `Speedup`. One that
            is refused, because the machine was busy or the FLOPs do not allow it, leaves the claim
            not testable.
        protocol: model, text, windows, seeds: what the number depends on. Default: that of the
            last table that the page has shown, or of `use_protocol`.
        paper: the paper's number, where the page computes it; default: that of the record.
        not_testable: why this run cannot test a claim that others can, in place of a verdict.
        at_least: how many times as fast the claim says it is; for a `Speedup` alone.
        requires: whether all else holds that the claim says; for a `Speedup` alone.

    Raises:
        UserError: the record has no such claim, a verdict is missing or of another kind, a text is
            empty, there is no protocol, or an option is given that another kind of verdict takes.
    """
    fields = find_stated(key).claim(key)
    statement = _statement(fields, paper)
    reason = not_testable or fields.get("not_testable")
    if (verdict is None) == (reason is None):
        raise UserError(
            f"claim {key!r}: needs a verdict, or a reason why it is not testable; not both"
        )
    if not isinstance(verdict, Speedup) and (at_least != 1 or not requires):
        raise UserError(f"claim {key!r}: at_least and requires go with a speed-up as the verdict")
    if reason is not None:
        return _show_untestable(statement, reason)
    if protocol is None:
        protocol = current_protocol(f"claim {key!r}")
    if isinstance(verdict, Speedup):
        return _judge_speed(statement, ours, verdict, protocol, at_least, requires)
    return _judge(statement, ours, verdict, protocol)


def check_rest() -> None:
    """Show every claim that the paper's record says is not testable, in the record's order.

    Raises:
        UserError: the record cannot be found.
    """
    for fields in find_stated().claims.values():
        if fields.get("not_testable"):
            _show_untestable(_statement(fields), fields["not_testable"])


def claim(
    key: str,
    statement: str,
    *,
    paper: str,
    source: str,
    ours: str,
    verdict: Gap | bool | str,
    protocol: Mapping,
) -> Claim:
    """Show a claim that the page writes out beside what we measured, and record both.

    Args:
        key: short name, unique in the notebook.
        statement: the claim, in our own words.
        paper: the paper's number, as text.
        source: table or figure that the paper's number stands in.
        ours: our number, as text made from measured values.
        verdict: a `Gap`, a truth value, or one of "holds", "tie", "fails".
        protocol: model, text, windows, seeds: what the number depends on.

    Raises:
        UserError: an empty text, a verdict of another kind, or a protocol that is empty or that
            JSON cannot hold.
    """
    return _judge(Statement(key, statement, paper, source), ours, verdict, protocol)


def not_testable(key: str, statement: str, *, paper: str, source: str, reason: str) -> Claim:
    """Show and record a claim that cannot be tested here, and say why.

    Args:
        key: short name, unique in the notebook.
        statement: the claim, in our own words.
        paper: the paper's number, as text.
        source: table or figure that the paper's number stands in.
        reason: why the claim cannot be tested.

    Raises:
        UserError: an empty text.
    """
    return _show_untestable(Statement(key, statement, paper, source), reason)


def claim_speed(
    key: str,
    statement: str,
    speedup: Speedup,
    *,
    paper: str,
    source: str,
    protocol: Mapping,
    at_least: float = 1.0,
    ours: str = "",
    requires: bool = True,
) -> Claim:
    """Show and record a claim that one thing is faster than another; see `check`.

    Args:
        key: short name, unique in the notebook.
        statement: the claim, in our own words.
        speedup: how many times as fast, in several rounds.
        paper: the paper's number, as text.
        source: table or figure that the paper's number stands in.
        protocol: model, text, windows: what the number depends on.
        at_least: how many times as fast the claim says it is.
        ours: what else we measured, as text before the speed.
        requires: whether all else holds that the claim says.

    Raises:
        UserError: as `claim`.
    """
    statement = Statement(key, statement, paper, source)
    return _judge_speed(statement, ours, speedup, protocol, at_least, requires)


def _statement(fields: Mapping[str, Any], paper: str | None = None) -> Statement:
    """The statement in a record's claim, with `paper` in place of its number if that is given."""
    names = ("key", "statement", "number", "source", "origin")
    key, text, number, source, origin = (fields.get(name) for name in names)
    if paper is None:
        paper = number
    return Statement(key, text, paper, source, origin)


def _judge(statement: Statement, ours: str, verdict: Gap | bool | str, protocol: Mapping) -> Claim:
    """Show and record the claim with its verdict."""
    key = statement.key
    numbers_of_gap = None
    if isinstance(verdict, Gap):
        numbers_of_gap = {**asdict(verdict), "ratio": verdict.ratio}
        if not all(map(math.isfinite, numbers_of_gap.values())):
            raise UserError(f"claim {key!r}: the gap is not finite: {verdict}")
        word = verdict.verdict
    elif isinstance(verdict, (bool, np.bool_)):
        word = {True: "holds", False: "fails"}[bool(verdict)]
    elif isinstance(verdict, str) and verdict in _DECIDED:
        word = verdict
    else:
        raise UserError(
            f"claim {key!r}: verdict {verdict!r}; allowed: a gap, True, False, "
            f"{', '.join(_DECIDED)}"
        )
    if is_quick_run():
        word = NOT_JUDGED
    return _show_judged(statement, ours, word, protocol, numbers_of_gap)


def _judge_speed(
    statement: Statement,
    ours: str,
    speedup: Speedup,
    protocol: Mapping,
    at_least: float,
    requires: bool,
) -> Claim:
    """Show and record a claim about speed; without a verdict where the speed-up is refused."""
    protocol = plain_protocol(protocol, f"claim {statement.key!r}: protocol")
    refusal = speedup.refusal
    if refusal and is_quick_run():
        return _show_judged(statement, refusal, NOT_JUDGED, protocol)
    if refusal:
        return _show_untestable(statement, refusal)
    ours = "; ".join(filter(None, [ours, str(speedup), speedup.detail]))
    verdict = "fails"
    if requires:
        verdict = speedup.verdict(at_least)
    return _judge(statement, ours, verdict, protocol)


def _show_judged(
    statement: Statement,
    ours: str,
    verdict: str,
    protocol: Mapping,
    gap: dict[str, float] | None = None,
) -> Claim:
    statement.check_texts(ours=ours)
    protocol = plain_protocol(protocol, f"claim {statement.key!r}: protocol")
    return _show(
        Claim(**statement._asdict(), ours=ours, verdict=verdict, protocol=protocol, gap=gap)
    )


def _show_untestable(statement: Statement, reason: str) -> Claim:
    statement.check_texts(reason=reason)
    return _show(
        Claim(**statement._asdict(), ours=None, verdict="not_testable", protocol={}, reason=reason)
    )


def _show(record: Claim) -> Claim:
    display_record(CLAIM_MIME, record.to_dict(), claim_html(record.to_dict()), str(record))
    return record

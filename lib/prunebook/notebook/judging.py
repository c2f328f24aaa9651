"""Verdicts of claims: how a claim is judged, shown and recorded. Needs no torch.

The public way to a verdict is `claims.check`; here is what happens to it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .bounds import Bound
from .claim_boxes import claim_html
from .display import ShownRecord, display_record
from .gaps import Gap
from .quick import is_quick_run
from .results import plain_protocol
from .speedup import Speedup
from .stated import Statement
from .tables import VERDICTS

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
        origin: one of `stated.ORIGINS`, whose claim it is; None where the page does not say.
        bound: numbers of the `Bound` that gave the verdict, if one did.
        undertrained: what the method lacked of its training; None where it lacked nothing.
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
    bound: dict[str, float] | None = None
    undertrained: str | None = None

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


def judge(
    statement: Statement,
    ours: str,
    verdict: Gap | Bound | bool | str,
    protocol: Mapping,
    undertrained: str | None = None,
) -> Claim:
    """Show and record a claim with its verdict; what refuses a verdict leaves it not testable.

    Args:
        statement: what is claimed.
        ours: our number, as text.
        verdict: as for `claims.check`, but for a `Speedup`.
        protocol: what our number depends on.
        undertrained: as for `claims.check`.

    Raises:
        UserError: an empty text, a verdict of another kind, numbers that are not finite, or a
            protocol that is empty or that JSON cannot hold.
    """
    _check_verdict(statement.key, verdict)
    numbers = {}
    if isinstance(verdict, (Gap, Bound)):
        kind = type(verdict).__name__.lower()
        numbers[kind] = verdict.to_dict()
        _check_finite(f"claim {statement.key!r}: the {kind}", numbers[kind])
        # A quick run is too small for a verdict, and says so by itself.
        if verdict.refusal and not is_quick_run():
            return show_untestable(statement, verdict.refusal)
    word = _word(verdict)
    if undertrained is not None:
        statement.check_texts(undertrained=undertrained)
        # A tie stays one: the run could not tell.
        if word == "fails":
            word = "undertrained"
    return _show_judged(statement, ours, word, protocol, undertrained=undertrained, **numbers)


def judge_speed(
    statement: Statement,
    ours: str,
    speedup: Speedup,
    protocol: Mapping,
    at_least: float,
    requires: bool,
    undertrained: str | None = None,
) -> Claim:
    """Show and record a claim about speed; without a verdict where the speed-up is refused.

    Args:
        statement: what is claimed.
        ours: what else we measured, as text before the speed; may be empty.
        speedup: how many times as fast, in several rounds.
        protocol: what our number depends on.
        at_least: as for `claims.check`, like `requires`.
        requires: whether all else holds that the claim says.
        undertrained: as for `claims.check`.

    Raises:
        UserError: as `judge`.
    """
    protocol = plain_protocol(protocol, f"claim {statement.key!r}: protocol")
    refusal = speedup.refusal
    if refusal and is_quick_run():
        return _show_judged(statement, refusal, NOT_JUDGED, protocol)
    if refusal:
        return show_untestable(statement, refusal)
    ours = "; ".join(filter(None, [ours, str(speedup), speedup.detail]))
    verdict = "fails"
    if requires:
        verdict = speedup.verdict(at_least)
    return judge(statement, ours, verdict, protocol, undertrained)


def show_untestable(statement: Statement, reason: str) -> Claim:
    """Show and record a claim that has no verdict, and why.

    Raises:
        UserError: an empty text.
    """
    statement.check_texts(reason=reason)
    return _show(
        Claim(**statement._asdict(), ours=None, verdict="not_testable", protocol={}, reason=reason)
    )


def _word(verdict: Gap | Bound | bool | str) -> str:
    """The key in `VERDICTS` of a verdict that is not refused."""
    if is_quick_run():
        return NOT_JUDGED
    if isinstance(verdict, (Gap, Bound)):
        return verdict.verdict
    if isinstance(verdict, (bool, np.bool_)):
        return {True: "holds", False: "fails"}[bool(verdict)]
    return verdict


def _check_verdict(key: str, verdict: Any) -> None:
    """Raise a `UserError` unless a verdict is of a kind that `_word` knows."""
    if isinstance(verdict, (Gap, Bound, bool, np.bool_)):
        return
    if not isinstance(verdict, str) or verdict not in _DECIDED:
        raise UserError(
            f"claim {key!r}: verdict {verdict!r}; allowed: a gap, a bound, True, False, "
            f"{', '.join(_DECIDED)}"
        )


def _check_finite(what: str, numbers: Mapping[str, Any]) -> None:
    """Raise a `UserError` where one of the numbers is NaN or infinite."""
    for name, value in numbers.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{what} is not finite: its {name} is {value}")


def _show_judged(
    statement: Statement, ours: str, verdict: str, protocol: Mapping, **fields: Any
) -> Claim:
    """Show and record a claim with what was measured; `fields` are those of `Claim`."""
    statement.check_texts(ours=ours)
    protocol = plain_protocol(protocol, f"claim {statement.key!r}: protocol")
    return _show(
        Claim(**statement._asdict(), ours=ours, verdict=verdict, protocol=protocol, **fields)
    )


def _show(record: Claim) -> Claim:
    display_record(CLAIM_MIME, record.to_dict(), claim_html(record.to_dict()), str(record))
    return record

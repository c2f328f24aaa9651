"""A paper's claim, checked: what the paper says, what we measured, and a verdict. Needs no torch.

`check` takes a claim from the paper's record and adds what we measured. It shows a box and leaves
a record beside it in the notebook's output, of the type `CLAIM_MIME`, from which the scoreboard is
built. `claim`, `claim_speed` and `not_testable` do so for a claim that the page itself writes out.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .bounds import Bound
from .gaps import Gap
from .judging import CLAIM_MIME, NOT_JUDGED, Claim, judge, judge_speed, show_untestable
from .results import current_protocol
from .speedup import Speedup
from .stated import Statement, find_stated

__all__ = [
    "CLAIM_MIME",
    "NOT_JUDGED",
    "Claim",
    "check",
    "check_rest",
    "claim",
    "claim_speed",
    "not_testable",
]


def check(
    key: str,
    *,
    ours: str = "",
    verdict: Gap | Bound | Speedup | bool | str | None = None,
    protocol: Mapping | None = None,
    paper: str | None = None,
    not_testable: str | None = None,
    undertrained: str | None = None,
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
        verdict: a `Gap`, a `Bound`, a `Speedup`, a truth value for what needs no estimate, or one
            of "holds", "tie", "fails". One that is refused, e.g. for too few windows or because
            the machine was busy, leaves the claim not testable.
        protocol: model, text, windows, seeds: what the number depends on. Default: that of the
            last table that the page has shown, or of `use_protocol`.
        paper: the paper's number, where the page computes it; default: that of the record.
        not_testable: why this run cannot test a claim that others can, in place of a verdict.
        undertrained: what the method lacked of the training that the paper gives it, e.g. "20 of
            42,000 steps"; what then fails is "not given its training".
        at_least: how many times as fast the claim says it is; for a `Speedup` alone.
        requires: whether all else holds that the claim says; for a `Speedup` alone.

    Raises:
        UserError: the record has no such claim, a verdict is missing or of another kind, a text is
            empty, there is no protocol, or an option is given that another kind of verdict takes.
    """
    fields = find_stated(key).claim(key)
    statement = _statement(fields, paper)
    reason = not_testable or fields.get("not_testable")
    _check_options(key, verdict, reason, at_least, requires)
    if reason is not None:
        return show_untestable(statement, reason)
    if protocol is None:
        protocol = current_protocol(f"claim {key!r}")
    if isinstance(verdict, Speedup):
        return judge_speed(statement, ours, verdict, protocol, at_least, requires, undertrained)
    return judge(statement, ours, verdict, protocol, undertrained)


def check_rest() -> None:
    """Show every claim that the paper's record says is not testable, in the record's order.

    Raises:
        UserError: the record cannot be found.
    """
    for fields in find_stated().claims.values():
        if fields.get("not_testable"):
            show_untestable(_statement(fields), fields["not_testable"])


def claim(
    key: str,
    statement: str,
    *,
    paper: str,
    source: str,
    ours: str,
    verdict: Gap | Bound | bool | str,
    protocol: Mapping,
) -> Claim:
    """Show a claim that the page writes out beside what we measured, and record both.

    Args:
        key: short name, unique in the notebook.
        statement: the claim, in our own words.
        paper: the paper's number, as text.
        source: table or figure that the paper's number stands in.
        ours: our number, as text made from measured values.
        verdict: a `Gap`, a `Bound`, a truth value, or one of "holds", "tie", "fails".
        protocol: model, text, windows, seeds: what the number depends on.

    Raises:
        UserError: an empty text, a verdict of another kind, or a protocol that is empty or that
            JSON cannot hold.
    """
    return judge(Statement(key, statement, paper, source), ours, verdict, protocol)


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
    return show_untestable(Statement(key, statement, paper, source), reason)


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
    return judge_speed(statement, ours, speedup, protocol, at_least, requires)


def _check_options(
    key: str, verdict: Any, reason: str | None, at_least: float, requires: bool
) -> None:
    """Raise a `UserError` unless the options of `check` go together."""
    if (verdict is None) == (reason is None):
        raise UserError(
            f"claim {key!r}: needs a verdict, or a reason why it is not testable; not both"
        )
    if not isinstance(verdict, Speedup) and (at_least != 1 or not requires):
        raise UserError(f"claim {key!r}: at_least and requires go with a speed-up as the verdict")


def _statement(fields: Mapping[str, Any], paper: str | None = None) -> Statement:
    """The statement in a record's claim, with `paper` in place of its number if that is given."""
    names = ("key", "statement", "number", "source", "origin")
    key, text, number, source, origin = (fields.get(name) for name in names)
    if paper is None:
        paper = number
    return Statement(key, text, paper, source, origin)

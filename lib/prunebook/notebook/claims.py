"""A paper's claim, checked: what the paper says, what we measured, and a verdict. Needs no torch.

`claim`, `not_testable` and `results` show a box or a table and leave a record beside it in the
notebook's output, as JSON of the types `CLAIM_MIME` and `RESULTS_MIME`; the scoreboard is built
from those.
"""

import datetime
import functools
import importlib.metadata
import math
import numbers
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import UserError
from .speedup import Speedup
from .tables import VERDICTS, claim_html, display_bundle, results_html, results_text

CLAIM_MIME = "application/vnd.prunebook.claim.v1+json"
RESULTS_MIME = "application/vnd.prunebook.results.v1+json"

# `prunebook run` says in this variable under which profile a notebook runs.
PROFILE_VARIABLE = "PRUNEBOOK_PROFILE"
QUICK = "quick"  # the profile that proves that a page runs, and judges nothing

NOT_JUDGED = "not_judged"
_DECIDED = ("holds", "tie", "fails")
_VERSIONED = ("torch", "transformers")


@dataclass(frozen=True)
class Gap:
    """The mean of `higher - lower` in nats per token, its standard error, and what follows from
    both."""

    mean: float
    standard_error: float

    @property
    def ratio(self) -> float:
        """The ratio of the two perplexities, higher to lower."""
        return math.exp(self.mean)

    @property
    def verdict(self) -> str:
        """`holds` above two standard errors, `fails` below minus two, `tie` in between."""
        if self.mean > 2 * self.standard_error:
            return "holds"
        return "fails" if self.mean < -2 * self.standard_error else "tie"

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.standard_error:.4f} nats per token"


def gap(lower, higher) -> Gap:
    """Test whether `lower` lies below `higher`, pairing the two by window and calibration seed.

    The standard error joins the spread over windows (of the seeds' means) and over seeds (of the
    windows' means): sqrt(var_windows / W + var_seeds / S), the second term 0 for one seed.

    Args:
        lower, higher: mean negative log-likelihood of each window in nats per token, `[seeds,
            windows]`.
    Raises:
        UserError: not two equal shapes `[seeds, windows]` with two windows or more, or values not
            finite.
    """
    lower, higher = (
        _matrix(name, values) for name, values in (("lower", lower), ("higher", higher))
    )
    if lower.shape != higher.shape:
        raise UserError(
            f"gap: lower {list(lower.shape)} and higher {list(higher.shape)} must have one shape"
        )
    difference = higher - lower
    seeds, windows = difference.shape
    of_windows = difference.mean(0).std(ddof=1) / math.sqrt(windows)
    of_seeds = difference.mean(1).std(ddof=1) / math.sqrt(seeds) if seeds > 1 else 0.0
    return Gap(float(difference.mean()), math.hypot(of_windows, of_seeds))


def _matrix(name: str, values) -> np.ndarray:
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"gap: {name} must be numbers [seeds, windows]: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] < 1 or matrix.shape[1] < 2:
        raise UserError(f"gap: {name} has shape {list(matrix.shape)}; needs [seeds, windows >= 2]")
    if not np.isfinite(matrix).all():
        count = int((~np.isfinite(matrix)).sum())
        raise UserError(f"gap: {name} has {count} values that are not finite")
    return matrix


class _Shown:
    """A record that is shown when it is made: as a cell's last value it must not appear twice."""

    def _ipython_display_(self) -> None:
        """Nothing: `claim`, `not_testable` and `results` have already shown it."""


@dataclass(frozen=True)
class Claim(_Shown):
    """A claim with its verdict; `ours` is None and `reason` given where it is not testable."""

    key: str
    statement: str
    paper: str
    source: str
    ours: str | None
    verdict: str
    protocol: dict[str, Any]
    reason: str | None = None
    gap: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        ours = f"ours: {self.ours}" if self.ours is not None else self.reason
        return (
            f"{self.statement}\n  paper: {self.paper} ({self.source})\n  {ours}\n  verdict: "
            + " ".join(VERDICTS[self.verdict])
        )


@dataclass(frozen=True)
class Results(_Shown):
    """Measured rows with what is needed to measure them again."""

    rows: list[dict[str, Any]]
    protocol: dict[str, Any]
    versions: dict[str, str]
    date: str
    commit: str | None

    def to_dict(self) -> dict[str, Any]:
        """The record, JSON-able."""
        return asdict(self)


def claim(
    key: str,
    statement: str,
    *,
    paper: str,
    source: str,
    ours: str,
    verdict: "Gap | bool | str",
    protocol: Mapping,
) -> Claim:
    """Show a claim of the paper beside what we measured, and record both. A quick run judges
    nothing: the verdict is then `not_judged`, whatever was measured.

    Args:
        key: short name, unique in the notebook.
        statement: the claim, in our own words.
        paper: the paper's number, as text; `source` is the table or figure it stands in.
        ours: our number, as text made from measured values.
        verdict: a `Gap`, a truth value, or one of "holds", "tie", "fails".
        protocol: model, text, windows, seeds: what the number depends on.
    Raises:
        UserError: an empty text, a verdict of another kind, or a protocol that JSON cannot hold.
    """
    numbers_of_gap = None
    if isinstance(verdict, Gap):
        numbers_of_gap = {**asdict(verdict), "ratio": verdict.ratio}
        if not all(map(math.isfinite, numbers_of_gap.values())):
            raise UserError(f"claim {key!r}: the gap is not finite: {verdict}")
        word = verdict.verdict
    elif isinstance(verdict, (bool, np.bool_)):
        word = "holds" if verdict else "fails"
    elif isinstance(verdict, str) and verdict in _DECIDED:
        word = verdict
    else:
        raise UserError(
            f"claim {key!r}: verdict {verdict!r}; allowed: a gap, True, False, "
            f"{', '.join(_DECIDED)}"
        )
    if is_quick_run():
        word = NOT_JUDGED
    _check_texts(key, statement=statement, paper=paper, source=source, ours=ours)
    plain_protocol = plain(dict(protocol), f"claim {key!r}: protocol")
    return _show_claim(
        Claim(key, statement, paper, source, ours, word, plain_protocol, None, numbers_of_gap)
    )


def is_quick_run() -> bool:
    """Is this a page that `prunebook run` executes under the quick profile?"""
    return os.environ.get(PROFILE_VARIABLE) == QUICK


def not_testable(key: str, statement: str, *, paper: str, source: str, reason: str) -> Claim:
    """Show and record a claim that cannot be tested here, and say why; other arguments as for
    `claim`.

    Raises:
        UserError: an empty text.
    """
    _check_texts(key, statement=statement, paper=paper, source=source, reason=reason)
    return _show_claim(Claim(key, statement, paper, source, None, "not_testable", {}, reason))


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
    """Show and record a claim that one thing is faster than another.

    A speed-up that is refused, as the machine was busy or the FLOPs do not allow it, leaves the
    claim not testable. Other arguments are as for `claim`.

    Args:
        speedup: how many times as fast, in several rounds.
        at_least: how many times as fast the claim says it is.
        ours: what else we measured, as text before the speed.
        requires: whether all else holds that the claim says.

    Raises:
        UserError: as `claim`.
    """
    refusal = speedup.refusal
    quick = os.environ.get(PROFILE_VARIABLE) == QUICK
    if refusal and not quick:
        return not_testable(key, statement, paper=paper, source=source, reason=refusal)
    if refusal:
        _check_texts(key, statement=statement, paper=paper, source=source)
        plain_protocol = plain(dict(protocol), f"claim {key!r}: protocol")
        return _show_claim(
            Claim(key, statement, paper, source, refusal, NOT_JUDGED, plain_protocol)
        )
    ours = "; ".join(filter(None, [ours, str(speedup), speedup.detail]))
    verdict = speedup.verdict(at_least) if requires else "fails"
    return claim(
        key, statement, paper=paper, source=source, ours=ours, verdict=verdict, protocol=protocol
    )


def results(rows: Iterable[Mapping], *, protocol: Mapping) -> Results:
    """Show measured rows as one table and record them with versions, date and commit.

    Args:
        rows: one mapping of name -> number, text, truth value or None for each row. Values that are
            not finite are recorded as None.
        protocol: what the numbers depend on.
    Raises:
        UserError: no row, or a value that JSON cannot hold.
    """
    rows = [plain(dict(row), f"results: row {index}") for index, row in enumerate(rows)]
    if not rows:
        raise UserError("results: no rows; needs at least one")
    record = Results(
        rows,
        plain(dict(protocol), "results: protocol"),
        _versions(),
        datetime.date.today().isoformat(),
        library_commit(),
    )
    _display(record, RESULTS_MIME, results_html(rows, record.protocol), results_text(rows))
    return record


def _check_texts(key: str, **texts: str) -> None:
    for name, text in {"key": key, **texts}.items():
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"claim {key!r}: {name} is {text!r}; needs a text")


def plain(value, where: str):
    """`value` as JSON holds it: numpy scalars unwrapped, numbers that are not finite None.

    Raises:
        UserError: a value JSON cannot hold; `where` begins the message.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where) for item in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise UserError(
        f"{where}: {type(value).__name__} is not allowed; allowed: number, text, true, false, None"
    )


def _versions() -> dict[str, str]:
    """The versions of what the numbers depend on, as far as it is installed."""
    found = {name: list(importlib.metadata.distributions(name=name)) for name in _VERSIONED}
    return {
        "prunebook": __version__,
        **{name: items[0].version for name, items in found.items() if items},
    }


@functools.cache
def library_commit() -> str | None:
    """The library's commit, with `-dirty` where files differ from it; None outside its
    repository."""
    folder = Path(__file__).parent
    for command in (["ls-files", "--error-unmatch", __file__], ["describe", "--always", "--dirty"]):
        try:
            done = subprocess.run(
                ["git", "-C", folder, *command], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
    return done.stdout.strip()


def _display(record: Claim | Results, mime: str, page: str, text: str) -> None:
    display_bundle({mime: record.to_dict(), "text/html": page, "text/plain": text})


def _show_claim(record: Claim) -> Claim:
    _display(record, CLAIM_MIME, claim_html(record.to_dict()), str(record))
    return record

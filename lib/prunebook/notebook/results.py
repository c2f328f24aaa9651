"""Measured rows: shown as a table, and recorded with all that is needed to measure them again."""

import datetime
import functools
import importlib.metadata
import math
import numbers
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import __version__
from ..errors import UserError
from .display import ShownRecord, display_record
from .tables import results_html, results_text

RESULTS_MIME = "application/vnd.prunebook.results.v1+json"
_VERSIONED = ("torch", "transformers")  # packages whose version changes numbers


@dataclass(frozen=True)
class Results(ShownRecord):
    """Measured rows with what is needed to measure them again, and to judge them again.

    Attributes:
        rows: the rows, column -> value.
        protocol: what the numbers depend on.
        versions: package -> version.
        date: day of the run.
        commit: commit of the library; None outside its repository.
        losses: label -> mean loss of each draw and window, `[draws][windows]`; empty where the
            page gives none.
    """

    rows: list[dict[str, Any]]
    protocol: dict[str, Any]
    versions: dict[str, str]
    date: str
    commit: str | None
    losses: dict[str, list[list[float]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The record, JSON-able."""
        return asdict(self)


class _Page:
    """What the page that runs in this process has shown."""

    protocol: dict[str, Any] | None = None


@runtime_checkable
class Compared(Protocol):
    """What `results` reads of a comparison, e.g. of `pb.compare`."""

    protocol: dict[str, Any]

    def rows(self) -> list[dict[str, Any]]: ...

    def losses(self) -> dict[str, list[list[float]]]: ...


def results(
    rows: Iterable[Mapping] | Compared,
    *,
    protocol: Mapping | None = None,
    losses: Mapping[str, Any] | None = None,
) -> Results:
    """Show measured rows as one table and record them with versions, date and commit.

    The protocol becomes that of the checks which follow on the page, see `use_protocol`.

    Args:
        rows: a comparison, which has all three; or one mapping of name -> number, text, truth
            value or None for each row. Values that are not finite are recorded as None.
        protocol: what the numbers depend on.
        losses: label -> mean loss of each draw and window, `[draws][windows]`; None for none.

    Raises:
        UserError: there is no row, the protocol is empty or no mapping, or a value is one that JSON
            cannot hold.
    """
    if isinstance(rows, Compared):
        protocol = protocol or rows.protocol
        losses = losses or rows.losses()
        rows = rows.rows()
    rows = [plain(dict(row), f"results: row {index}") for index, row in enumerate(rows)]
    if not rows:
        raise UserError("results: no rows; needs at least one")
    record = Results(
        rows,
        plain_protocol(protocol, "results: protocol"),
        _versions(),
        datetime.date.today().isoformat(),
        library_commit(),
        plain(dict(losses or {}), "results: losses"),
    )
    use_protocol(record.protocol)
    page = results_html(rows, record.protocol)
    display_record(RESULTS_MIME, record.to_dict(), page, results_text(rows))
    return record


def use_protocol(protocol: Mapping) -> None:
    """Let the checks that follow on the page be of this protocol, where they name none.

    Args:
        protocol: model, text, windows, seeds: what the numbers depend on.

    Raises:
        UserError: the protocol is empty or no mapping, or a value is one that JSON cannot hold.
    """
    _Page.protocol = plain_protocol(protocol, "use_protocol")


def current_protocol(where: str) -> dict[str, Any]:
    """The protocol of the last table or `use_protocol` on this page.

    Args:
        where: what needs it, for the error.

    Raises:
        UserError: the page has shown no table yet.
    """
    if _Page.protocol is None:
        raise UserError(f"{where}: no protocol; show a table first, or give `protocol`")
    return _Page.protocol


def plain_protocol(protocol: Mapping, where: str) -> dict[str, Any]:
    """The protocol as JSON holds it, see `plain`.

    Args:
        protocol: what the numbers depend on, at least one name -> value.
        where: what it is the protocol of, for the error.

    Raises:
        UserError: the protocol is empty or no mapping, or a value is one that JSON cannot hold.
    """
    needs = 'needs a dict of what the numbers depend on, e.g. {"windows": 32}'
    if not isinstance(protocol, Mapping):
        raise UserError(f"{where}: {type(protocol).__name__} is not allowed; {needs}")
    if not protocol:
        raise UserError(f"{where}: an empty protocol is not allowed; {needs}")
    return plain(dict(protocol), where)


def plain(value: Any, where: str) -> Any:
    """The value as JSON holds it: numbers of numpy as Python's, tuples as lists, no NaN.

    Args:
        value: nested mappings, lists, numbers, texts, truth values and None.
        where: what the value is, for the error.

    Raises:
        UserError: the value holds something else.
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
        number = float(value)
        return number if math.isfinite(number) else None
    raise UserError(
        f"{where}: {type(value).__name__} is not allowed; allowed: number, text, true, false, None"
    )


@functools.cache
def library_commit() -> str | None:
    """The library's commit, `-dirty` where files differ from it; None outside its repository."""
    folder = Path(__file__).parent
    for command in (["ls-files", "--error-unmatch", __file__], ["describe", "--always", "--dirty"]):
        try:
            done = subprocess.run(
                ["git", "-C", folder, *command], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    """The versions of the library and of what the numbers depend on, as far as it is installed."""
    versions = {"prunebook": __version__}
    for name in _VERSIONED:
        for distribution in importlib.metadata.distributions(name=name):
            versions.setdefault(name, distribution.version)
    return versions

"""What became of the notebooks of a run, as data and as the table that closes it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from ..notebook.tables import human_bytes


@dataclass(frozen=True)
class Failure:
    """Where a notebook failed: `cell 5` or, in a page, `line 42` of the source, the cell's first
    line, the error.

    `where` and `line` are empty where the process ended without a word.
    """

    where: str
    line: str
    error: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook: `ran`, `up to date`, `failed`, `not started` or `not run yet`.

    `seconds` are wall time. `peak_memory` is the largest resident size of its kernel in bytes, None
    where it is not known.
    """

    name: str
    status: str
    seconds: float = 0.0
    failure: Failure | None = None
    peak_memory: int | None = None


@dataclass(frozen=True)
class Summary:
    """The outcomes of a run, in the order of the book's tables. As text: a short table."""

    profile: str
    outcomes: list[Outcome]
    folder: Path

    @property
    def failed(self) -> list[Outcome]:
        """The notebooks that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def __str__(self) -> str:
        width = max((len(outcome.name) for outcome in self.outcomes), default=0)
        lines = []
        for outcome in self.outcomes:
            took = f"{outcome.seconds:8.1f} s" if outcome.seconds else ""
            memory = f"  {human_bytes(outcome.peak_memory)}" if outcome.peak_memory else ""
            lines.append(f"{outcome.name:<{width}}  {outcome.status:<11}{took}{memory}".rstrip())
            if outcome.failure:
                lines += [f"{'':<{width}}  {text}" for text in self._explain(outcome)]
        return "\n".join([*lines, *self._total()])

    def _total(self) -> list[str]:
        """One line on all that ran: how many, how long together, the longest, the largest."""
        timed = [outcome for outcome in self.outcomes if outcome.seconds]
        if len(timed) < 2:
            return []
        total = sum(outcome.seconds for outcome in timed)
        longest = max(timed, key=lambda outcome: outcome.seconds)
        parts = [
            f"{len(timed)} pages, {duration(total)} together",
            f"longest {longest.name} with {longest.seconds:.1f} s",
        ]
        measured = [outcome for outcome in timed if outcome.peak_memory]
        if measured:
            largest = max(measured, key=lambda outcome: outcome.peak_memory)
            parts.append(f"largest {largest.name} with {human_bytes(largest.peak_memory)}")
        return ["; ".join(parts)]

    def _explain(self, outcome: Outcome) -> list[str]:
        failure = outcome.failure
        command = shlex.join(["prunebook", "run", outcome.name, "--profile", self.profile])
        kept = self.folder / outcome.name
        return [
            *([f"{failure.where}: {failure.line}"] if failure.where else []),
            f"{failure.error}: {failure.message}",
            f"kept: {kept}.failed.ipynb, {kept.name}.log",
            f"rerun: {command}",
        ]


def duration(seconds: float) -> str:
    """Seconds as `18 s` or `2:05 min`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"

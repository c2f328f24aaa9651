"""The outcome of each notebook of a run, as data and as the table that closes the run."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from ..notebook.tables import human_bytes


@dataclass(frozen=True)
class Failure:
    """Where and how a notebook failed.

    Attributes:
        where: place in the source: `cell 5` in a notebook, `line 42` in a page; empty where the
            process ended without a report.
        line: the line of the cell that failed, or else its first; empty like `where`.
        error: name of the exception.
        message: first line of its message.
    """

    where: str
    line: str
    error: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """How one notebook of a run ended.

    Attributes:
        name: name of the notebook.
        status: `ran`, `up to date`, `failed`, `not started`, `not run yet`, or `as in` a revision.
        seconds: wall time; 0 where nothing was executed.
        failure: what went wrong; None where nothing did.
        peak_memory: largest resident size of the kernel, in bytes; None where it is not known.
    """

    name: str
    status: str
    seconds: float = 0.0
    failure: Failure | None = None
    peak_memory: int | None = None


@dataclass(frozen=True)
class Summary:
    """The outcomes of a run, in the order of the book's tables; as text, a short table.

    Attributes:
        profile: profile of the run.
        outcomes: one for each notebook.
        folder: folder of the executed notebooks.
    """

    profile: str
    outcomes: list[Outcome]
    folder: Path

    @property
    def failed(self) -> list[Outcome]:
        """The notebooks that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def __str__(self) -> str:
        """One line for each notebook, more for one that failed, and a line on all that ran."""
        width = max((len(outcome.name) for outcome in self.outcomes), default=0)
        lines = []
        for outcome in self.outcomes:
            line = f"{outcome.name:<{width}}  {outcome.status:<11}"
            if outcome.seconds:
                line += f"{outcome.seconds:8.1f} s"
            if outcome.peak_memory:
                line += f"  {human_bytes(outcome.peak_memory)}"
            lines.append(line.rstrip())
            if outcome.failure:
                lines += [f"{'':<{width}}  {text}" for text in self._explain(outcome)]
        return "\n".join([*lines, *self._total()])

    def _total(self) -> list[str]:
        """The line on all pages that ran: their number, time, longest and largest; or no line."""
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
        """The lines on a failure: where, what, which files were kept, and how to run it again."""
        failure = outcome.failure
        command = shlex.join(["prunebook", "run", outcome.name, "--profile", self.profile])
        kept = self.folder / outcome.name
        lines = [
            f"{failure.error}: {failure.message}",
            f"kept: {kept}.failed.ipynb, {kept.name}.log",
            f"rerun: {command}",
        ]
        if failure.where:
            lines.insert(0, f"{failure.where}: {failure.line}")
        return lines


def duration(seconds: float) -> str:
    """Seconds as `18 s` or `2:05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min"

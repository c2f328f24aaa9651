"""What a run shows while it goes on: the pages that run, their cells, elapsed and expected time."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .summary import Outcome, duration

_SECONDS_PER_TICK = 1.0  # the line on a terminal is drawn anew once in this time
_MEASURED = "benchmarks/results/pages-cpu.json"  # the record of durations, in the book's folder


def measured_durations(root: Path, profile: str) -> dict[str, float]:
    """The durations of pages in the record that `benchmarks/pages.py` writes.

    Args:
        root: folder of the book.
        profile: profile of the run.

    Returns:
        Page -> seconds; empty where the record is missing or of another profile.

    Raises:
        UserError: the record cannot be read.
    """
    path = root / _MEASURED
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["profile"] != profile:
            return {}
        return {row["name"]: float(row["seconds"]) for row in record["rows"]}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{_MEASURED}: no readable record of durations: {error!r}") from error


@dataclass
class _Page:
    """A page that is running.

    Attributes:
        position: number of the page in the run, from 1.
        cells: number of its cells.
        began: time of its start.
        done: number of cells that are done.
    """

    position: int
    cells: int
    began: float
    done: int = 0


class Progress:
    """The state of a run, shown as it changes.

    On a terminal it is one line that is drawn anew; elsewhere there is a line for each event.

    Args:
        cells: page -> number of its cells, for all pages that may run, in their order.
        expected: page -> seconds that it took the last time; pages may be missing.
        jobs: number of pages that run at a time.
    """

    def __init__(self, cells: Mapping[str, int], expected: Mapping[str, float], jobs: int = 1):
        self._cells = dict(cells)
        self._expected = {name: expected[name] for name in cells if name in expected}
        self._jobs = jobs
        self._waiting = list(cells)
        self._running: dict[str, _Page] = {}
        self._ended = 0
        self._began = time.perf_counter()
        self._lock = threading.Lock()
        self._terminal = sys.stderr.isatty()

    @contextlib.contextmanager
    def shown(self) -> Iterator["Progress"]:
        """Draw the line every second while the context is open, on a terminal."""
        over = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(over,), daemon=True)
        if self._terminal:
            ticker.start()
        try:
            yield self
        finally:
            over.set()
            if self._terminal:
                ticker.join()
                self._write("")

    def start(self, name: str) -> None:
        """Note that a page starts to run."""
        with self._lock:
            self._waiting.remove(name)
            position = self._ended + len(self._running) + 1
            self._running[name] = _Page(position, self._cells[name], time.perf_counter())
            if self._terminal:
                return
            line = f"[{position}/{len(self._cells)}] {name}: running"
            if name in self._expected:
                line += f", about {duration(self._expected[name])}"
            print(line, flush=True)

    def cell(self, name: str, done: int) -> None:
        """Note how many cells of a page are done."""
        self._running[name].done = done

    def end(self, outcome: Outcome) -> None:
        """Note that a page has run, has failed, or needed no run."""
        with self._lock:
            self._ended += 1
            page = self._running.pop(outcome.name, None)
            # Pages that are up to date appear in the closing table alone.
            if page is None:
                self._waiting.remove(outcome.name)
                return
            line = f"[{page.position}/{len(self._cells)}] {outcome.name}: {outcome.status}"
            if outcome.seconds:
                line += f" in {outcome.seconds:.1f} s"
            if self._terminal:
                self._write("")
                print(line, flush=True)
            else:
                print(f"{line} ({self._times()})", flush=True)

    def line(self) -> str:
        """The line of a terminal: the running pages with their cells, then the times of the run."""
        now = time.perf_counter()
        parts = []
        for name, page in self._running.items():
            cell = min(page.done + 1, page.cells)
            part = (
                f"[{page.position}/{len(self._cells)}] {name}, cell {cell} of {page.cells}, "
                f"{duration(now - page.began)}"
            )
            if self._expected.get(name):
                part += f" of about {duration(self._expected[name])}"
            parts.append(part)
        return " | ".join([*parts, self._times()])

    def _times(self) -> str:
        """The time since the start of the run, and the expected time until its end if known."""
        elapsed = f"{duration(time.perf_counter() - self._began)} elapsed"
        remaining = self._remaining()
        if remaining is None:
            return elapsed
        return f"{elapsed}, about {duration(remaining)} left"

    def _remaining(self) -> float | None:
        """Expected seconds until the end; None where a page still to come has never been timed."""
        if any(name not in self._expected for name in (*self._waiting, *self._running)):
            return None
        now = time.perf_counter()
        waiting = sum(self._expected[name] for name in self._waiting)
        running = sum(
            max(self._expected[name] - (now - page.began), 0)
            for name, page in self._running.items()
        )
        return (waiting + running) / self._jobs

    def _tick(self, over: threading.Event) -> None:
        """Draw the line again and again until the event is set."""
        while not over.wait(_SECONDS_PER_TICK):
            with self._lock:
                self._write(self.line())

    def _write(self, text: str) -> None:
        """Replace the terminal's current line."""
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

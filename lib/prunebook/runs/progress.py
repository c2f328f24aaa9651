"""What a run shows while it goes on: which page of how many, its cell, elapsed and expected
time."""

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

_TICK = 1.0  # seconds between two drawings of the line on a terminal
_MEASURED = "benchmarks/results/pages-cpu.json"


def measured_durations(root: Path, profile: str) -> dict[str, float]:
    """Page -> seconds, from the record that `benchmarks/pages.py` wrote; empty without one of the
    profile.

    Raises:
        UserError: the record cannot be read.
    """
    path = root / _MEASURED
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = record["rows"] if record["profile"] == profile else []
        return {row["name"]: float(row["seconds"]) for row in rows}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{_MEASURED}: no readable record of durations: {error!r}") from error


@dataclass
class _Page:
    """A page that is running."""

    position: int
    cells: int
    began: float
    done: int = 0


class Progress:
    """The state of a run: one line that is drawn anew on a terminal, a line for each event
    elsewhere.

    Args:
        cells: page -> its number of cells, of all that may run, in their order.
        expected: page -> seconds that it took the last time; pages may be missing.
        jobs: pages that run at a time.
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
        """A page starts to run."""
        with self._lock:
            self._waiting.remove(name)
            position = self._ended + len(self._running) + 1
            self._running[name] = _Page(position, self._cells[name], time.perf_counter())
            if not self._terminal:
                about = (
                    f", about {duration(self._expected[name])}" if name in self._expected else ""
                )
                print(f"[{position}/{len(self._cells)}] {name}: running{about}", flush=True)

    def cell(self, name: str, done: int) -> None:
        """So many of the page's cells are done."""
        self._running[name].done = done

    def end(self, outcome: Outcome) -> None:
        """A page has run, failed, or needed no run."""
        with self._lock:
            self._ended += 1
            page = self._running.pop(outcome.name, None)
            if page is None:
                self._waiting.remove(outcome.name)
                return  # a page that is up to date is told in the closing table alone
            took = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
            line = f"[{page.position}/{len(self._cells)}] {outcome.name}: {outcome.status}{took}"
            if self._terminal:
                self._write("")
                print(line, flush=True)
            else:
                print(f"{line} ({self._times()})", flush=True)

    def line(self) -> str:
        """The line of a terminal: the pages that run with their cells, then the times of the
        run."""
        now = time.perf_counter()
        parts = []
        for name, page in self._running.items():
            expected = self._expected.get(name)
            of = f" of about {duration(expected)}" if expected else ""
            cell = min(page.done + 1, page.cells)
            parts.append(
                f"[{page.position}/{len(self._cells)}] {name}, cell {cell} of {page.cells}, "
                f"{duration(now - page.began)}{of}"
            )
        return " | ".join([*parts, self._times()])

    def _times(self) -> str:
        elapsed = f"{duration(time.perf_counter() - self._began)} elapsed"
        left = self._left()
        return elapsed if left is None else f"{elapsed}, about {duration(left)} left"

    def _left(self) -> float | None:
        """Expected seconds until the end; None where a page that is to come has never been
        timed."""
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
        while not over.wait(_TICK):
            with self._lock:
                self._write(self.line())

    def _write(self, text: str) -> None:
        """Replace the terminal's current line."""
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

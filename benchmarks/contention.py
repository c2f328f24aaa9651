"""Does `prunebook.contention` see a process that spins beside a section, and nothing otherwise?

    python -m benchmarks.contention [--sections 20] [--seconds 0.2 0.5 1 2]

Needs a machine that is quiet otherwise. A line for each kind of own work and each length of a
section: in how many sections the verdict was right, and the cores that other work kept busy, at
most while quiet and at least beside one spinning process. The limit is a quarter of a core.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from prunebook.notebook.contention import Section, watch

LENGTHS = (0.2, 0.5, 1.0, 2.0)  # seconds
# The shell ends at once, so the process is no child of ours. Time of a child would be our own.
_SPIN = '"$0" -c "while True: pass" >/dev/null 2>&1 & echo $!'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", type=int, default=20)
    parser.add_argument("--seconds", type=float, nargs="+", default=LENGTHS)
    options = parser.parse_args()
    count = options.sections
    matrix = np.ones((512, 512), np.float32)
    kinds = {
        "nothing": lambda: time.sleep(0.01),
        "one thread": lambda: sum(range(10_000)),
        "products on all cores": lambda: matrix @ matrix,
    }
    print(
        "own work               seconds  quiet: not busy  most cores  spinning: busy  fewest cores"
    )
    for kind, work in kinds.items():
        for length in options.seconds:
            quiet = [watched(work, length) for _ in range(count)]
            with spinning_process():
                beside = [watched(work, length) for _ in range(count)]
            right = [
                sum(not section.busy for section in quiet),
                sum(section.busy for section in beside),
            ]
            most = max(section.other_work for section in quiet)
            fewest = min(section.other_work for section in beside)
            print(
                f"{kind:<21}  {length:>7}  {right[0]:>6} of {count:<5}  {most:>10.3f}"
                f"  {right[1]:>5} of {count:<5}  {fewest:>12.3f}",
                flush=True,
            )


def watched(work: Callable[[], object], length: float) -> Section:
    """Repeat the work for `length` seconds in a section that is watched."""
    with watch() as section:
        end = time.monotonic() + length
        while time.monotonic() < end:
            work()
    return section


@contextmanager
def spinning_process() -> Iterator[None]:
    """While open, a process outside our own tree keeps one thread busy."""
    started = subprocess.run(
        ["sh", "-c", _SPIN, sys.executable], capture_output=True, text=True, check=True
    )
    pid = int(started.stdout)
    time.sleep(0.5)  # until its interpreter has started
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

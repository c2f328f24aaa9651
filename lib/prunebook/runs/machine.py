"""Cores and memory that this process may use.

On Linux its control groups (version 2) may limit both. Groups of version 1 are not read.
"""

import contextlib
import os
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may keep busy at once, 1 or more."""
    # The scheduler may give the process only some of the cores.
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    # A control group may limit its share of the time: `quota period` in microseconds, or
    # `max period` for no limit.
    for text in _limits("cpu.max"):
        quota, period = text.split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def usable_memory() -> int:
    """Memory that this process may hold, in bytes."""
    limits = [int(text) for text in _limits("memory.max") if text != "max"]
    return min([psutil.virtual_memory().total, *limits])


def _limits(name: str) -> list[str]:
    """The contents of the file `name` in the process's control group and each group above it."""
    limits = []
    for line in _text(_MEMBERSHIP).splitlines():
        if not line.startswith("0::/"):  # the line of a group of version 1
            continue
        group = _CGROUPS / line.removeprefix("0::/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(_CGROUPS) and (text := _text(folder / name)):
                limits.append(text)
    return limits


def _text(path: Path) -> str:
    """The text of a file; empty where it cannot be read, because then no limit is known."""
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""

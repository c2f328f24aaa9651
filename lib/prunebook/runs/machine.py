"""Cores and memory that this process may use.

On Linux these are what its control groups leave; those of version 1 are not read.
"""

import contextlib
import os
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may keep busy at once, 1 or more."""
    # The cores that the scheduler may give it.
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    # The share of time of its control groups: `quota period` in microseconds, or `max period`.
    for text in _limits("cpu.max"):
        quota, period = text.split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def usable_memory() -> int:
    """Bytes of memory that this process may hold."""
    limits = [int(text) for text in _limits("memory.max") if text != "max"]
    return min([psutil.virtual_memory().total, *limits])


def _limits(name: str) -> list[str]:
    """The contents of the file `name` in the process's control group and each group above it."""
    limits = []
    for line in _text(_MEMBERSHIP).splitlines():
        if not line.startswith("0::/"):  # a group of version 1
            continue
        group = _CGROUPS / line.removeprefix("0::/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(_CGROUPS) and (text := _text(folder / name)):
                limits.append(text)
    return limits


def _text(path: Path) -> str:
    """The text of a file; empty where it is missing or may not be read, as the limit is then
    unknown."""
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""

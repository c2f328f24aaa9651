"""What of the machine this process may use: a container's limits, where it has any, not the whole machine."""

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
    """What the files of that name say, of the process's control group and of all around it (version 2, Linux)."""
    if not _MEMBERSHIP.exists():
        return []
    lines = _MEMBERSHIP.read_text().splitlines()
    groups = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    folders = [folder for group in groups for folder in (_CGROUPS / group, *(_CGROUPS / group).parents)]
    files = [folder / name for folder in folders if folder.is_relative_to(_CGROUPS)]
    return [file.read_text().strip() for file in files if file.exists()]

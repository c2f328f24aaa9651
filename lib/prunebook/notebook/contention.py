"""Whether other work disturbed a timed section. Needs no torch.

Other work is CPU time that the cores of this process spent on anything but this process and its
children, and time that a hypervisor took from them. A section is busy if that is more than a
quarter of one core. The limit does not grow with the number of cores, since a product on all of
them ends with its slowest part.

Two other signs are not used. The CPU time of a process parts from wall time without any other
work, as its threads wait for each other, for a disk or for a GPU. The load average holds the last
minute of this process itself. What other processes do on a GPU is not seen; the host alone is
judged there.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import psutil

BUSY = "machine was busy: not timed"

_LIMIT = 0.25  # cores that other work may keep busy
# Seconds that one core is watched at least. The system counts in ticks of 10 ms, for each core and
# each of three kinds of work. Three standard deviations of that rounding are then 0.14 of a core,
# whatever their number.
_SHORTEST = 0.15
# kinds of work of a core; a system that lacks one of them counts it in another
_BUSY_KINDS = ("user", "nice", "system", "irq", "softirq")


class Counters(NamedTuple):
    """What has been counted up to now, in seconds.

    Attributes:
        wall: a steady clock.
        busy: CPU time of all work on the cores that this process may use, without `stolen`.
        stolen: time in which such a core had work and the hypervisor ran something else.
        own: CPU time of this process and its children.
        cores: number of cores that this process may use.
    """

    wall: float
    busy: float
    stolen: float
    own: float
    cores: int


@dataclass
class Section:
    """A piece of work that is watched.

    Attributes:
        other_work: the cores that other work kept busy on average, once the section has ended.
    """

    other_work: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether other work disturbed it."""
        return self.other_work > _LIMIT


@contextmanager
def watch() -> Iterator[Section]:
    """Watch the block; the section that it yields is judged when the block ends.

    Counters cannot tell about a short block. It is joined with a pause, until 0.15 seconds times
    the square root of the number of cores are over: 0.21 s on two cores.
    """
    section = Section()
    before = read_counters()
    yield section
    after = read_counters()
    missing = shortest(before.cores) - (after.wall - before.wall)
    if missing > 0:
        time.sleep(missing)
        after = read_counters()
    section.other_work = other_work(before, after)


def other_work(before: Counters, after: Counters) -> float:
    """The cores that other work kept busy between two readings on average, stolen time included."""
    of_others = (after.busy - before.busy) - (after.own - before.own)
    # Rounding can make it negative, and so do systems that count stolen time as the process's own.
    seconds = max(of_others, 0.0) + (after.stolen - before.stolen)
    return seconds / (after.wall - before.wall)


def shortest(cores: int) -> float:
    """Seconds for which so many cores have to be watched before the counters can tell."""
    return _SHORTEST * math.sqrt(cores)


def read_counters() -> Counters:
    """Read the counters of the system and of this process."""
    times = psutil.cpu_times(percpu=True)
    allowed = range(len(times))
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
    # A container may number its cores anew; then the numbers do not fit, and all are counted.
    if allowed[-1] < len(times):
        times = [times[core] for core in allowed]
    busy = sum(sum(getattr(core, kind, 0.0) for kind in _BUSY_KINDS) for core in times)
    stolen = sum(getattr(core, "steal", 0.0) for core in times)
    return Counters(time.monotonic(), busy, stolen, _own_seconds(), len(times))


def _own_seconds() -> float:
    """CPU seconds of this process, the children that it has waited for, and those that live."""
    waited = os.times()
    seconds = time.process_time() + waited.children_user + waited.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds

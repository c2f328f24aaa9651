"""`contention`: readings of the counters in, verdicts out. Nothing is timed here."""

import math
import os
from types import SimpleNamespace

import pytest

from prunebook.notebook import contention
from prunebook.notebook.contention import (
    Counters,
    Section,
    other_work,
    read_counters,
    shortest,
    watch,
)

START = Counters(100.0, 50.0, 2.0, 20.0, 2)


def after(wall, busy, own, stolen=0.0):
    """Readings that much later than `START`."""
    return Counters(START.wall + wall, START.busy + busy, START.stolen + stolen, START.own + own, 2)


@pytest.mark.parametrize(
    ("later", "cores", "busy"),
    [
        (after(4.0, busy=8.0, own=8.0), 0.0, False),  # both cores are ours
        (after(4.0, busy=4.0, own=3.0), 0.25, False),  # a quarter of a core is allowed
        (after(4.0, busy=4.0, own=2.875), 0.28125, True),
        (after(4.0, busy=8.0, own=5.0), 0.75, True),  # a spinning process beside our two threads
        (after(4.0, busy=2.0, own=2.5), 0.0, False),  # rounding
        (after(4.0, busy=2.0, own=2.0, stolen=1.5), 0.375, True),
        (
            after(4.0, busy=2.0, own=3.5, stolen=1.5),
            0.375,
            True,
        ),  # where own time holds what was stolen
        (after(4.0, busy=0.0, own=0.0), 0.0, False),
    ],
)
def test_other_work_is_what_we_did_not_do(later, cores, busy):
    assert other_work(START, later) == cores
    assert Section(cores).busy is busy


def test_more_cores_are_watched_longer():
    assert [shortest(cores) for cores in (1, 4, 64)] == [0.15, 0.3, pytest.approx(1.2)]


@pytest.fixture
def machine(monkeypatch):
    """Readings to come, and the pauses that were made."""
    readings = []
    pauses = []
    monkeypatch.setattr(contention, "read_counters", lambda: readings.pop(0))
    monkeypatch.setattr(contention.time, "sleep", pauses.append)
    return readings, pauses


def test_a_long_section_is_judged_as_it_is(machine):
    readings, pauses = machine
    readings += [START, after(1.0, busy=1.5, own=1.0)]
    with watch() as section:
        assert len(readings) == 1
    assert section.busy
    assert (readings, pauses) == ([], [])


def test_a_short_section_is_joined_with_a_pause(machine):
    readings, pauses = machine
    readings += [START, after(0.05, busy=0.1, own=0.05), after(0.25, busy=0.1, own=0.05)]
    with watch() as section:
        pass
    assert pauses == [pytest.approx(0.15 * math.sqrt(2) - 0.05)]
    assert section.other_work == pytest.approx(0.2)  # 0.05 s of it in 0.25 s
    assert not section.busy
    assert readings == []


def test_a_fault_is_not_judged(machine):
    readings, pauses = machine
    readings += [START]
    with pytest.raises(ZeroDivisionError), watch() as section:
        raise ZeroDivisionError
    assert not section.busy
    assert pauses == []


def system(monkeypatch, allowed):
    """Two cores; a process of 5 s; children: one ended after 3 s, one lives, one ends meanwhile."""
    cores = [
        SimpleNamespace(
            user=10.0,
            nice=1.0,
            system=2.0,
            idle=90.0,
            iowait=4.0,
            irq=0.25,
            softirq=0.5,
            steal=0.125,
        ),
        SimpleNamespace(user=20.0, system=4.0, idle=70.0),  # as elsewhere than on Linux
    ]
    lives = SimpleNamespace(
        cpu_times=lambda: SimpleNamespace(
            user=1.0, system=0.5, children_user=0.25, children_system=0.25, iowait=9.0
        )
    )
    ends = SimpleNamespace(
        cpu_times=lambda: (_ for _ in ()).throw(contention.psutil.NoSuchProcess(7))
    )
    monkeypatch.setattr(contention.psutil, "cpu_times", lambda percpu: cores)
    monkeypatch.setattr(
        contention.psutil,
        "Process",
        lambda: SimpleNamespace(children=lambda recursive: [lives, ends]),
    )
    monkeypatch.setattr(contention.os, "sched_getaffinity", lambda pid: allowed, raising=False)
    monkeypatch.setattr(
        contention.os, "times", lambda: SimpleNamespace(children_user=2.0, children_system=1.0)
    )
    monkeypatch.setattr(contention.time, "process_time", lambda: 5.0)
    monkeypatch.setattr(contention.time, "monotonic", lambda: 1000.0)


@pytest.mark.parametrize(
    ("allowed", "busy", "stolen", "cores"),
    [
        ({0, 1}, 37.75, 0.125, 2),
        ({0}, 13.75, 0.125, 1),
        ({1}, 24.0, 0.0, 1),
        ({6, 7}, 37.75, 0.125, 2),  # a container that shows its two cores as 0 and 1
    ],
)
def test_readings_are_of_the_cores_that_we_may_use(monkeypatch, allowed, busy, stolen, cores):
    system(monkeypatch, allowed)
    assert read_counters() == Counters(1000.0, busy, stolen, 10.0, cores)


def test_readings_of_this_machine():
    first = read_counters()
    sum(range(1_000_000))
    second = read_counters()
    assert second.own > first.own > 0
    assert second.wall > first.wall
    assert second.busy >= first.busy > 0
    assert (
        first.cores == len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else first.cores >= 1
    )

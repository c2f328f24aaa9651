"""What a process may use, with made-up control groups."""

import os
from types import SimpleNamespace

import pytest

from prunebook.runs import machine

GIB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine of 8 cores and 64 GiB; this process is in the group `a/b`, whose files the test
    writes."""
    (tmp_path / "cgroup" / "a" / "b").mkdir(parents=True)
    (tmp_path / "self").write_text("1:name=systemd:/other\n0::/a/b\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GIB))
    return tmp_path / "cgroup"


def test_without_limits_all_of_the_machine(groups):
    assert machine.usable_cores() == 8
    assert machine.usable_memory() == 64 * GIB


@pytest.mark.parametrize("folder", ["a/b", "a", "."])
def test_a_limit_of_any_group_around_holds(groups, folder):
    (groups / folder / "cpu.max").write_text("250000 100000\n")
    (groups / folder / "memory.max").write_text(f"{3 * GIB}\n")
    assert machine.usable_cores() == 2
    assert machine.usable_memory() == 3 * GIB


def test_the_tightest_limit_holds(groups):
    (groups / "cpu.max").write_text("max 100000\n")
    (groups / "a" / "cpu.max").write_text("300000 100000\n")
    (groups / "a" / "b" / "cpu.max").write_text("50000 100000\n")
    (groups / "memory.max").write_text("max\n")
    (groups / "a" / "b" / "memory.max").write_text(f"{100 * GIB}\n")
    assert machine.usable_cores() == 1  # half a core is one
    assert machine.usable_memory() == 64 * GIB


def test_in_a_container_the_own_group_is_the_root(groups):
    (groups.parent / "self").write_text("0::/\n")
    (groups / "cpu.max").write_text("400000 100000\n")
    assert machine.usable_cores() == 4


def test_a_limit_that_cannot_be_read_is_none(groups):
    (groups / "a" / "cpu.max").mkdir()
    assert machine.usable_cores() == 8


def test_elsewhere_than_on_linux(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(total=3 * GIB))
    assert machine.usable_cores() == 6
    assert machine.usable_memory() == 3 * GIB

"""Memory: large blocks are reused while the context is open, and given back after it."""

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunebook.measure.memory import malloc_pool

ROOT = Path(__file__).parents[2]
SIZE = 40 * 2**20  # bytes, above what malloc keeps by its own rule
linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc and /proc are Linux's")


def faults(rounds=5, size=SIZE):
    """Page faults of allocating, filling and freeing a block so many times, after a first time."""
    c = ctypes.CDLL(None)
    c.malloc.restype = ctypes.c_void_p
    c.malloc.argtypes = [ctypes.c_size_t]
    c.free.argtypes = [ctypes.c_void_p]
    found = []
    for _ in range(rounds + 1):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = c.malloc(size)
        ctypes.memset(block, 1, size)
        c.free(block)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return sum(found[1:])


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def young_process(code):
    """What code prints in a process whose heap no other test has used: a free block there would
    hold the test's."""
    imports = [
        "import torch",
        "from prunebook.measure.memory import malloc_pool, peak_memory",
        "from tests.measure.test_memory import SIZE, faults, resident",
    ]
    code = "\n".join([*imports, code])
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


@linux
def test_what_is_freed_is_reused_while_open_and_given_back_after():
    printed = young_process(
        "fresh, before = faults(), resident()\n"
        "with malloc_pool():\n"
        "    reused, held = faults(), resident()\n"
        "print(fresh, reused, faults(), held - before, resident() - before)"
    )
    fresh, reused, after, held, kept = map(int, printed.split())
    assert fresh >= 5 * SIZE / 2**21  # at least one a huge page
    assert reused < fresh / 10
    assert after > fresh / 10  # the usual rule again
    assert held > SIZE / 2 > kept


@linux
def test_smaller_blocks_are_still_reused_after_it():
    printed = young_process("with malloc_pool():\n    pass\nprint(faults(size=2**22))")
    # thresholds are lowest in a young process
    assert int(printed) < 5 * 2**22 / resource.getpagesize() / 2


@linux
def test_memory_is_given_back_after_a_fault():
    held = resident()
    with pytest.raises(RuntimeError, match="negative dimension"), malloc_pool():
        torch.empty(SIZE // 4).fill_(1.0).new_empty(-1)
    assert resident() < held + SIZE // 2


@linux
def test_the_peak_counts_what_was_freed_before_the_end():
    printed = young_process(
        "held = resident()\n"
        "with peak_memory(torch.device('cpu')) as peak:\n"
        "    torch.empty(SIZE).fill_(1.0)\n"  # four bytes each
        "print(peak.bytes - held, resident() - held)"
    )
    peak, kept = map(int, printed.split())
    assert peak > 3 * SIZE
    assert kept < SIZE

"""Memory: large blocks are reused while the context is open, and given back after it."""

import ctypes
import resource
import sys
from pathlib import Path

import pytest
import torch

from prunebook.memory import peak_memory, reusing_memory

SIZE = 40 * 2**20  # bytes, above what malloc keeps by its own rule
linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc and /proc are Linux's")


def faults(rounds=5):
    """Page faults of allocating, filling and freeing a block so many times, after a first time."""
    c = ctypes.CDLL(None)
    c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    found = []
    for _ in range(rounds + 1):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = c.malloc(SIZE)
        ctypes.memset(block, 1, SIZE)
        c.free(block)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return sum(found[1:])


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@linux
def test_what_is_freed_is_reused_while_open_and_given_back_after():
    fresh, held = faults(), resident()
    with reusing_memory():
        reused = faults()
        assert resident() > held + SIZE // 2
    assert reused < fresh / 10
    assert resident() < held + SIZE // 2
    assert faults() > fresh / 10  # the usual rule again


@linux
def test_memory_is_given_back_after_a_fault():
    held = resident()
    with pytest.raises(RuntimeError, match="negative dimension"), reusing_memory():
        torch.empty(SIZE // 4).fill_(1.0).new_empty(-1)
    assert resident() < held + SIZE // 2


def test_the_peak_counts_what_was_freed_before_the_end():
    with peak_memory(torch.device("cpu")) as peak:
        torch.empty(SIZE // 4).fill_(1.0)
    assert peak.bytes > SIZE

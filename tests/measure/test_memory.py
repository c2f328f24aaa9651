"""Memory: large blocks are reused while the context is open, and given back after it."""

import ctypes
import json
import os
import resource
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from prunebook.measure.memory import malloc_pool, peak_memory

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


@pytest.fixture(scope="module")
def young_process():
    """`young_process(code)`: what code prints in a process whose heap no other test has used.

    A free block there would hold the test's. One process does the imports, which take seconds, and
    forks another for each code.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )

    def printed(code):
        print(json.dumps(code), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    yield printed
    process.communicate(timeout=60)  # closes its input, which ends it


def serve():
    """Run each line of standard input, code as JSON, in a forked process; answer its output."""
    known = {each.__name__: each for each in (faults, malloc_pool, peak_memory, resident)}
    for line in sys.stdin:
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.dup2(writing, 1)
            try:
                exec(json.loads(line), {"torch": torch, "SIZE": SIZE, **known})
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as output:
            print(json.dumps(output.read()), flush=True)
        os.wait()


@linux
def test_what_is_freed_is_reused_while_open_and_given_back_after(young_process):
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
def test_smaller_blocks_are_still_reused_after_it(young_process):
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
def test_the_peak_counts_what_was_freed_before_the_end(young_process):
    printed = young_process(
        "held = resident()\n"
        "with peak_memory(torch.device('cpu')) as peak:\n"
        "    torch.empty(SIZE).fill_(1.0)\n"  # four bytes each
        "print(peak.bytes - held, resident() - held)"
    )
    peak, kept = map(int, printed.split())
    assert peak > 3 * SIZE
    assert kept < SIZE

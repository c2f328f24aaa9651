"""Compiles kernels for a GPU that is not there, exactly as their launchers call them.

Inside `compiled_for()` a launch compiles its kernel for the given architecture, from the arguments'
types and values, and runs nothing; what was compiled is collected. It needs a process in which
Triton does not interpret.
"""

import atexit
import functools
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from prunebook.kernels.launch import triton

HOPPER = 90
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(triton is None, reason="Triton is not installed on this platform")


@dataclass(frozen=True)
class Compiled:
    """A kernel for one set of arguments: registers a thread, bytes of stack a thread (spills) and
    of shared memory."""

    name: str
    registers: int
    stack: int
    shared: int
    ptx: str


class _NoDevice:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, arch: int):
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@contextmanager
def compiled_for(arch: int = HOPPER):
    """Yield the list to which each launch inside the block adds a `Compiled`."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    found = []
    launch = JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        registers, stack = _usage(kernel.asm["cubin"])
        found.append(
            Compiled(
                kernel.metadata.name, registers, stack, kernel.metadata.shared, kernel.asm["ptx"]
            )
        )
        return kernel

    driver.set_active(_NoDevice(arch))
    JITFunction.run = compile_only
    try:
        yield found
    finally:
        JITFunction.run = launch


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack, as `cuobjdump` reports them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return tuple(int(re.search(rf"\b{what}:(\d+)", text)[1]) for what in ("REG", "STACK"))


def compile_apart(code: str) -> str:
    """What `code` prints in a process that compiles instead of interpreting; `compiled_for` is
    imported there.

    That process is started once, since its imports take seconds, and runs the code of all calls:
    what one call changes in a module stays changed for the next.

    Raises:
        AssertionError: the code fails; the message is the traceback.
    """
    process = _compiling_process()
    print(json.dumps(code), file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        _compiling_process.cache_clear()
    assert answer, f"the compiling process ended with code {process.wait()}"
    printed, failure = json.loads(answer)
    assert failure is None, failure
    return printed


@functools.cache
def _compiling_process() -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", "from tests.kernels import compiling; compiling.serve()"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    atexit.register(process.communicate)  # closes its input, which ends it
    return process


def serve() -> None:
    """Run each line of standard input, code as JSON, and answer what it printed and its traceback,
    None without one."""
    # Output of other programs, such as the assembler, goes to standard error, so that no answer is
    # mixed with it.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        printed = io.StringIO()
        failure = None
        try:
            with redirect_stdout(printed):
                exec(json.loads(line), {"compiled_for": compiled_for})
        except BaseException:
            failure = traceback.format_exc()
        print(json.dumps([printed.getvalue(), failure]), file=channel, flush=True)

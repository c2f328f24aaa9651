"""A Jupyter kernel in a forked process: it has everything that was imported before the fork."""

import ctypes
import os
import signal
import sys
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

_PR_SET_PDEATHSIG = 1  # option of Linux' prctl: the signal to this process when its parent ends


def end_with_parent() -> None:
    """Let the system kill this process when the one that forked it ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ForkedKernel:
    """A process that waits for its connection file and then becomes a kernel.

    It is forked when the object is made, before any event loop or socket exists in this process.
    The object has those methods of a `Popen` that Jupyter calls.
    """

    stdin = stdout = stderr = None

    def __init__(self):
        self.returncode: int | None = None
        self.peak_memory = 0  # largest resident size in bytes, known once the process has ended
        reading, self._writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writing)
            end_with_parent()
            _be_kernel(reading)
        os.close(reading)

    def start(self, connection_file: str) -> None:
        """Let the process become the kernel of this connection file."""
        with os.fdopen(self._writing, "w") as pipe:
            pipe.write(connection_file)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for the end; the exit code, negative for a signal."""
        return self._reap(0)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the process to end, unless it has ended."""
        self.send_signal(signal.SIGTERM)

    def _reap(self, options: int) -> int | None:
        """Note the exit code and the memory of the process if it has ended; the exit code."""
        if self.returncode is None:
            pid, status, usage = os.wait4(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                self.peak_memory = usage.ru_maxrss * 1024  # Linux counts in KiB
        return self.returncode


def _be_kernel(reading: int) -> None:
    """Read the name of the connection file from a pipe and run a kernel; never returns."""
    code = 1
    try:
        with os.fdopen(reading) as pipe:
            connection_file = pipe.read()
        if connection_file:
            from ipykernel.kernelapp import IPKernelApp

            sys.argv = ["ipykernel"]
            options = ["-f", connection_file]
            # Pyplot links itself to the shell when it is imported; there was no shell yet then.
            if "matplotlib.pyplot" in sys.modules:
                options.append("--InteractiveShellApp.matplotlib=inline")
            IPKernelApp.launch_instance(options)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, int):
            code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The exit handlers are those of the forking process; they must not run here.
        os._exit(code)


class ForkedProvisioner(LocalProvisioner):
    """A provisioner that uses a `ForkedKernel` where Jupyter would start a process."""

    kernel: ForkedKernel

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Hand the manager's connection file to the forked kernel; the command is not run."""
        self.kernel.start(self.parent.connection_file)
        self.process = self.kernel
        self.pid = self.kernel.pid
        return self.connection_info

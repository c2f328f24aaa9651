"""A forked process that waits for its connection file, with the methods of a `Popen`."""

import signal

import pytest

from prunebook.runs.forked_kernel import ForkedKernel
from prunebook.runs.worker import FORKS

pytestmark = pytest.mark.skipif(not FORKS, reason="kernels are forked on Linux alone")


@pytest.fixture
def kernel():
    """A process that waits; it is gone after the test."""
    forked = ForkedKernel()
    yield forked
    forked.kill()
    forked.wait()


@pytest.mark.parametrize(
    ("end", "number"), [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)]
)
def test_a_process_that_waits_can_be_ended(kernel, end, number):
    assert kernel.poll() is None
    assert (kernel.returncode, kernel.peak_memory) == (None, 0)
    getattr(kernel, end)()
    assert kernel.wait() == -number
    assert kernel.poll() == kernel.returncode == -number
    assert 2**20 < kernel.peak_memory < 2**36


def test_an_ended_process_gets_no_signal(kernel):
    kernel.kill()
    kernel.wait()
    kernel.send_signal(signal.SIGTERM)  # its number may belong to another process by now
    assert kernel.wait() == -signal.SIGKILL


def test_without_a_connection_file_the_process_ends_at_once(kernel):
    kernel.start("")
    assert kernel.wait() == 0

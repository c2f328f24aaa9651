"""The device's part of the protocol, on a CPU whose events and graphs are stand-ins."""

import contextlib
import subprocess
from types import SimpleNamespace

import pytest
import torch

from prunebook.bench import gpu
from prunebook.bench.case import Provider
from prunebook.bench.measure import CaptureError, LostError


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    def elapsed_time(self, end):
        return 0.6  # ms


class Graph:
    replays = 0

    def replay(self):
        Graph.replays += 1


@pytest.fixture
def cuda(monkeypatch):
    """CUDA's events, graphs and synchronisation, none of which does anything."""
    streams = ["the current one"]
    stand_ins = {
        "Event": Event,
        "CUDAGraph": Graph,
        "synchronize": lambda: None,
        "current_stream": lambda: streams[-1],
        "set_stream": streams.append,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    Graph.replays = 0
    return streams


def stage(provider, written=("x",), size=10):
    return gpu._Stage(provider, {"x": torch.arange(float(size))}, written, torch.ones(4))


def test_samples_see_operands_as_they_were_and_a_cleared_cache(cuda):
    seen = []
    made = []

    def device(operands):
        seen.append(operands["x"].clone())
        operands["x"].zero_()

    def prepare(operands):
        made.append(operands["x"])
        return operands

    ready = stage(
        Provider("ours", lambda operands: seen.append("call"), device=device, prepare=prepare)
    )
    ready._cleared.fill_(1)
    assert ready.device() == pytest.approx(600)
    assert ready._cleared.sum() == 0
    assert len(made) == 1
    assert seen[-1].tolist() == list(range(10))
    assert ready.wall() > 0
    assert seen[-1] == "call"
    assert made[0].tolist() == list(range(10))
    assert (ready.mode, ready.copies) == ("eager", 1)


def test_a_graph_calls_once_for_each_of_many_copies(cuda):
    addresses = []
    ready = stage(
        Provider("ours", lambda operands: addresses.append(operands["x"].data_ptr())), size=50
    )
    ready.capture(1000)
    assert (ready.mode, ready.copies) == ("graph", 5)  # of 200 bytes each
    assert len(set(addresses[-5:])) == 5
    assert ready.device() == pytest.approx(120)
    assert Graph.replays == 2  # one of them to warm up
    assert stage(Provider("ours", lambda operands: None))._graph is None


def test_what_a_graph_cannot_hold_is_said(cuda):
    calls = []

    def waits(operands):
        calls.append(1)
        if len(calls) > 2:  # the first two warm up
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.raises(CaptureError, match=r"^operation not permitted when stream is capturing$"):
        stage(Provider("ours", waits)).capture(1)


def test_a_capture_that_fails_gives_the_stream_back(cuda, monkeypatch):
    class Capture(contextlib.nullcontext):
        """As torch's: ending a capture that is broken raises before the stream is put back."""

        def __enter__(self):
            torch.cuda.set_stream("the capture's")

        def __exit__(self, *error):
            raise RuntimeError("capture was invalidated")

    monkeypatch.setattr(torch.cuda, "graph", lambda graph: Capture())
    with pytest.raises(CaptureError, match="invalidated"):
        stage(Provider("ours", lambda operands: None)).capture(1)
    assert torch.cuda.current_stream() == "the current one"


def test_no_cache_holds_what_a_graph_rotates_over():
    assert gpu.rotated_bytes(50 * 2**20) == 4 * 50 * 2**20
    assert gpu.rotated_bytes(4 * 2**20) == 200e6


@pytest.fixture
def timer():
    timer = object.__new__(gpu.GpuTimer)
    timer.properties = SimpleNamespace(
        name="Fake GPU",
        major=9,
        minor=0,
        multi_processor_count=132,
        total_memory=80,
        L2_cache_size=50,
        uuid="ab-c",
    )
    return timer


def test_the_machine_and_its_clocks(timer, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        text = "580.1" if "driver_version" in command[1] else "1980, 2619, 412.5, [N/A]"
        return SimpleNamespace(stdout=text + "\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert timer.machine() == {
        "device": "Fake GPU",
        "capability": "9.0",
        "multiprocessors": 132,
        "memory_bytes": 80,
        "l2_bytes": 50,
        "driver": "580.1",
    }
    assert timer.clocks() == {"sm_mhz": 1980, "memory_mhz": 2619, "watts": 412.5}
    assert asked[0][-2:] == ["-i", "GPU-ab-c"]


def test_without_nvidia_smi_clocks_are_unknown(timer, monkeypatch):
    def absent(*command, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", absent)
    assert timer.clocks() is None
    assert timer.machine()["driver"] == "unknown"


def test_a_device_that_does_not_answer_is_lost(timer, monkeypatch):
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(LostError, match=r"^CUDA error: an illegal memory access$"):
        timer.settle()
    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    with pytest.raises(LostError, match=r"^CUDA error: an illegal memory access$"):
        timer.release()

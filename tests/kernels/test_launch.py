"""Kernels are launched on the device of their tensors, wherever they stand among the arguments."""

import pytest
import torch

from prunebook.kernels import launch
from prunebook.kernels.formats.ell import Ell
from prunebook.kernels.launch import (
    next_power_of_2,
    on_device,
    or_unread,
    runs_natively,
    split_steps,
)
from prunebook.kernels.score import Score


@pytest.fixture
def entered(monkeypatch):
    """Devices that were made the current one, and tensors that claim to be on a GPU."""
    found = []

    class Entered:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            found.append(self.device)

        def __exit__(self, *_):
            found.append("left")

    monkeypatch.setattr(launch.torch.cuda, "device", Entered)
    return found


class OnGpu(torch.Tensor):
    is_cuda = True
    device = "cuda:1"


def on_gpu():
    return torch.zeros(2).as_subclass(OnGpu)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda: (on_gpu(), 3),
        lambda: ([torch.zeros(1), on_gpu()], None),
        lambda: (torch.zeros(1), Ell(on_gpu(), on_gpu(), 2)),
        lambda: (Score(on_gpu()), torch.zeros(1)),
        lambda: ([Score(on_gpu())], None),
        lambda: ((1, [on_gpu()]),),
    ],
)
def test_the_first_tensor_on_a_gpu_says_where(entered, arguments):
    assert on_device(lambda *given: len(given))(*(given := arguments())) == len(given)
    assert entered == ["cuda:1", "left"]


def test_tensors_of_the_cpu_ask_for_no_device(entered):
    assert on_device(lambda x, y=0: x + y)(torch.ones(1), y=2).item() == 3
    assert entered == []


@pytest.mark.parametrize(
    ("capability", "tiles"), [((8, 0), False), ((8, 9), False), ((9, 0), True), ((12, 0), False)]
)
def test_tiles_run_where_the_shared_memory_is(monkeypatch, capability, tiles):
    monkeypatch.setattr(launch, "triton", object())
    monkeypatch.setattr(launch.torch.cuda, "get_device_capability", lambda device: capability)
    assert runs_natively(on_gpu(), on_gpu())
    assert runs_natively(on_gpu(), on_gpu(), tiles=True) is tiles
    assert runs_natively(on_gpu(), None)
    assert not runs_natively(on_gpu(), torch.zeros(1))


def test_a_missing_tensor_is_stood_in_for():
    tensor = torch.ones(1)
    unread = torch.zeros(1)
    assert or_unread(tensor, unread) is tensor
    assert or_unread(None, unread) is unread


def test_powers_of_two():
    assert [next_power_of_2(n) for n in (0, 1, 2, 3, 4, 5, 1023, 1024, 1025)] == [
        1,
        1,
        2,
        4,
        4,
        8,
        1024,
        1024,
        2048,
    ]


@pytest.mark.parametrize(
    ("steps", "parts", "least", "split"),
    [
        (10, 4, 1, (4, 3)),
        (10, 100, 1, (10, 1)),
        (10, 100, 2, (5, 2)),
        (10, 0, 1, (1, 10)),
        (1, 8, 2, (1, 1)),
        (9, 4, 2, (3, 3)),
    ],
)
def test_steps_are_shared_out_with_none_left_empty(steps, parts, least, split):
    assert split_steps(steps, parts, least) == split

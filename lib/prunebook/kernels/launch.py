"""Triton where it is installed, and what all launchers share.

A kernel's file holds its torch reference, which defines it, the Triton kernel, and one function
that dispatches. A launcher takes tensors of any device: under `TRITON_INTERPRET=1` its kernel runs
on the CPU, where tests call it.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass

import torch

# Major compute capabilities whose programs can have 227 KB of shared memory. An A100 has 163 KB,
# others have 99 KB.
_LARGE = (9, 10)
PROGRAMS = 264  # sums are split into about so many programs, two a multiprocessor of an H100

if importlib.util.find_spec("triton"):
    import triton
    import triton.language as tl
else:  # no wheel for this platform: the references remain
    triton = tl = None


def jit(function, **options):
    """`triton.jit`, or the function as it is where Triton is missing (it is then never called)."""
    if triton is None:
        return function
    return triton.jit(function, **options)


def runs_natively(*tensors: torch.Tensor | None, tiles: bool = False) -> bool:
    """Whether a Triton kernel can take these tensors: all on one CUDA device, and Triton installed.

    Args:
        tensors: the tensors; None is ignored.
        tiles: the tiles of the kernel are sized for the shared memory of an H100. Devices with less
            take the reference.
    """
    read = [tensor for tensor in tensors if tensor is not None]
    if triton is None or not all(t.is_cuda and t.device == read[0].device for t in read):
        return False
    return not tiles or torch.cuda.get_device_capability(read[0].device)[0] in _LARGE


def or_unread(tensor: torch.Tensor | None, unread: torch.Tensor) -> torch.Tensor:
    """The tensor, or `unread`, which a kernel takes in the place of one that it does not read."""
    return unread if tensor is None else tensor


def on_device(launcher: Callable) -> Callable:
    """Run a launcher with the device of its tensors as the current one.

    Triton launches on the current device.
    """

    @functools.wraps(launcher)
    def launch(*args, **options):
        first = next((tensor for tensor in _tensors(args) if tensor.is_cuda), None)
        if first is None:
            return launcher(*args, **options)
        with torch.cuda.device(first.device):
            return launcher(*args, **options)

    return launch


def _tensors(value: object) -> Iterator[torch.Tensor]:
    """The tensors among arguments, in sequences, and in dataclasses, e.g. scores."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value):
        yield from _tensors(list(vars(value).values()))


def split_steps(steps: int, parts: int, least: int = 1) -> tuple[int, int]:
    """Share `steps` out in about `parts` parts.

    A part has at least `least` steps where there are as many, and no part is empty.

    Returns:
        The number of parts, and the steps of a part.
    """
    each = -(-steps // max(min(parts, steps // least), 1))
    return -(-steps // each), each


def multiplies_wide(dtype: torch.dtype) -> bool:
    """Whether products of `dtype` must be in float32, as Triton's interpreter lacks bfloat16."""
    return dtype == torch.bfloat16 and triton.knobs.runtime.interpret


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least `n`, 1 for 0."""
    return 1 << max(n - 1, 0).bit_length()

"""Triton where it is installed, and what all launchers share.

A kernel's file holds its torch reference, which defines it, the Triton kernel, and one function
that dispatches. A launcher takes tensors of any device: under `TRITON_INTERPRET=1` its kernel runs
on the CPU, where tests call it.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator

import torch

# compute capabilities whose programs can have 227 KB of shared memory; an A100 has 163, others 99
_LARGE = (9, 10)
PROGRAMS = 264  # two for each multiprocessor of an H100: what splitting a sum aims at

if importlib.util.find_spec("triton"):
    import triton
    import triton.language as tl
else:  # no wheel for this platform: the references remain
    triton = tl = None


def jit(function, **options):
    """`triton.jit`, or the function as it is where Triton is missing (it is then never called)."""
    return triton.jit(function, **options) if triton else function


def runs_natively(*tensors: torch.Tensor, tiles: bool = False) -> bool:
    """Whether a Triton kernel can take these tensors: all on one CUDA device, and Triton installed.

    `tiles`: of a kernel whose tiles are sized for the shared memory of an H100; devices with less
        take the reference.
    """
    if triton is None or not all(t.is_cuda and t.device == tensors[0].device for t in tensors):
        return False
    return not tiles or torch.cuda.get_device_capability(tensors[0].device)[0] in _LARGE


def on_device(launcher: Callable) -> Callable:
    """Run a launcher with the device of its tensors as the current one, on which Triton
    launches."""

    @functools.wraps(launcher)
    def launch(*args, **options):
        found = next((tensor for tensor in _tensors(args) if tensor.is_cuda), None)
        if found is None:
            return launcher(*args, **options)
        with torch.cuda.device(found.device):
            return launcher(*args, **options)

    return launch


def _tensors(value) -> Iterator[torch.Tensor]:
    """The tensors among arguments, in sequences, and the values of packed weights."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "values"):
        yield from _tensors(value.values)


def split_steps(steps: int, parts: int, least: int = 1) -> tuple[int, int]:
    """Into how many parts `steps` go, and steps a part: about `parts`, but `least` steps or more a
    part where there are as many, and no part without any."""
    each = -(-steps // max(min(parts, steps // least), 1))
    return -(-steps // each), each


def multiplies_wide(dtype: torch.dtype) -> bool:
    """Whether products of `dtype` have to be in float32: Triton's interpreter cannot multiply
    bfloat16."""
    return dtype == torch.bfloat16 and triton.knobs.runtime.interpret


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least `n`, 1 for 0."""
    return 1 << max(n - 1, 0).bit_length()

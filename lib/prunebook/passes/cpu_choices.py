"""Which of two ways a CPU computes the same product faster, measured once a process.

The two ways round differently in the last digits, so a process never changes its choice. The
default stays unless the other way takes less than 0.9 of its time: a noisy measurement between
equals must not change digits from run to run.
"""

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

# Largest share of the default's time that counts as clearly faster.
_CLEARLY_FASTER = 0.9

# Measurements of each way. The fastest counts: other work on the machine only ever adds time.
_ROUNDS = 5

# Tokens, inputs and outputs of the linear layers that are timed.
_LINEARS = ((512, 576, 576), (512, 576, 1536), (512, 1536, 576))


@functools.cache
def linear_library() -> str:
    """The library of float32 linear layers: `onednn`, or `mkl` where that is clearly faster.

    The first call measures both, which takes some 50 ms.
    """
    if not torch.backends.mkldnn.is_available():
        return "mkl"
    operands = [(_values(m, k), _values(n, k)) for m, k, n in _LINEARS]

    def onednn() -> None:
        for x, weight in operands:
            onednn_linear(x, weight)

    def mkl() -> None:
        for x, weight in operands:
            F.linear(x, weight)

    if is_clearly_faster(mkl, onednn):
        return "mkl"
    return "onednn"


def onednn_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`x W^T + b` of CPU tensors of one dtype through oneDNN.

    Args:
        x: `[..., in]`, float32 or bfloat16.
        weight: `[out, in]`, not empty.
        bias: `[out]`, or None.
    """
    # Strided operands would fall back to a reference loop.
    return torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight.contiguous(), bias, "none", [], ""
    )


def is_clearly_faster(other: Callable[[], object], default: Callable[[], object]) -> bool:
    """Whether `other` takes less than 0.9 of the time of `default`, without gradients and automatic
    casts."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        times = {function: [] for function in (default, other)}
        # One round more than is counted: the first one sets up. The ways take turns, so that other
        # work on the machine meets both.
        for _ in range(_ROUNDS + 1):
            for function, seconds in times.items():
                start = time.perf_counter()
                function()
                seconds.append(time.perf_counter() - start)
    return min(times[other][1:]) < _CLEARLY_FASTER * min(times[default][1:])


def _values(*shape: int) -> torch.Tensor:
    """Ordinary numbers without a draw: the caller's random state stays as it is."""
    return torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)

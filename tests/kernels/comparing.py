"""What the tests of kernels compare with: bits, a dense product, and memory that is NaN before."""

import contextlib

import torch
import torch.nn.functional as F

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@contextlib.contextmanager
def unwritten_memory_is_nan():
    """Inside the block `torch.empty` fills with NaN, or with the largest whole number."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of 2 or 4 bytes a number have one dtype and equal bits, NaN too."""
    whole = torch.int16 if a.dtype.itemsize == 2 else torch.int32
    return a.dtype == b.dtype and torch.equal(
        a.contiguous().view(whole), b.contiguous().view(whole)
    )


def assert_as_exact_as_dense(found, x, weight, bias=None):
    """The error is at most twice that of a dense product of the same dtype.

    One unit in the last place of the largest result is allowed too: Triton's interpreter cuts
    bfloat16 off where a GPU rounds it.
    """
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    dense = (F.linear(x, weight, bias).double() - exact).abs().max()
    last_place = torch.finfo(x.dtype).eps * exact.abs().max()
    assert found.dtype == x.dtype
    assert found.shape == exact.shape
    assert (found.double() - exact).abs().max() <= max(2 * dense, last_place)

"""Bitmap weights: the layout, exact round trips in torch and by the kernel, and what cannot be
packed."""

import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.comparing import DTYPES, same_bits, unwritten_memory_is_nan
from tests.kernels.compiling import compile_apart, needs_triton
from tests.kernels.formats.sparse_weights import sparse, special
from tests.refusals import refused_in_one_line

from prunebook.errors import UserError
from prunebook.kernels.formats import bitmap
from prunebook.kernels.formats.bitmap import (
    Bitmap,
    launch_unpack_bitmap,
    pack_bitmap,
    unpack_bitmap,
    unpack_bitmap_reference,
)


def test_the_layout_by_hand():
    """Rows of 1 and 9 values, filled up to 8 and 16; an empty one takes none."""
    weight = torch.zeros(3, 1100)
    weight[0, 9] = 5.0
    weight[2, 505:514] = torch.arange(1.0, 10)
    packed = pack_bitmap(weight)
    assert packed.values.tolist() == [5, *[0] * 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, *[0] * 7]
    assert packed.bits.shape == (3, 138)
    assert packed.bits[0].nonzero().tolist() == [[1]]
    assert packed.bits[0, 1] == 0b10
    assert packed.bits[2, 63:66].tolist() == [0b11111110, 0b11, 0]
    assert packed.starts.tolist() == [[0, 1, 1], [8, 8, 8], [8, 15, 17]]
    assert packed.starts.dtype == torch.int32
    assert packed.shape == (3, 1100)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 5),
    st.one_of(st.integers(0, 20), st.integers(0, 1600)),
    st.sampled_from([0, 0.01, 0.3, 0.6, 1]),
    st.sampled_from(DTYPES),
    st.integers(0, 10**6),
)
def test_the_round_trip_is_exact(rows, width, share, dtype, seed):
    weight = sparse(rows, width, share, dtype, seed)
    packed = pack_bitmap(weight)
    assert same_bits(unpack_bitmap(packed), weight)
    again = pack_bitmap(unpack_bitmap(packed))
    assert all(
        torch.equal(getattr(packed, name), getattr(again, name))
        for name in ("values", "bits", "starts")
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_but_zeros_keeps_its_bits(dtype):
    weight, expected = special(dtype)
    packed = pack_bitmap(weight)
    assert len(packed.values) == 16
    assert same_bits(unpack_bitmap(packed), expected)
    assert not unpack_bitmap(packed)[0, 0].signbit()


def launched(packed):
    """What the kernel writes into memory that is NaN before."""
    with unwritten_memory_is_nan():
        return launch_unpack_bitmap(packed)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "width", "share"), [(1, 1, 1), (5, 37, 0.5), (2, 576, 0.2), (1, 1101, 1), (3, 9, 0)]
)
def test_the_kernel_unpacks_bit_by_bit(rows, width, share, dtype):
    weight = sparse(rows, width, share, dtype)
    packed = pack_bitmap(weight)
    assert same_bits(launched(packed), weight)
    assert same_bits(unpack_bitmap_reference(packed), weight)


@needs_triton
def test_any_strides_are_packed_and_unpacked():
    weight = sparse(30, 7, 0.5)
    packed = pack_bitmap(weight.T)
    assert torch.equal(unpack_bitmap(packed), weight.T)
    apart = {
        name: getattr(packed, name).repeat_interleave(2, dim=-1)[..., ::2]
        for name in ("values", "bits")
    }
    apart["starts"] = packed.starts.repeat_interleave(2, dim=1)[:, ::2]
    packed = dataclasses.replace(packed, **apart)
    assert not packed.bits.is_contiguous()
    assert torch.equal(unpack_bitmap_reference(packed), weight.T)
    assert torch.equal(launched(packed), weight.T)


@pytest.mark.parametrize(
    ("dtype", "kept", "bits"),
    [(torch.bfloat16, 2, 9.0625), (torch.bfloat16, 5, 4.2625), (torch.float32, 2, 17.0625)],
)
def test_bits_a_weight(dtype, kept, bits):
    weight = torch.zeros(4, 5120, dtype=dtype)
    weight[:, ::kept] = 1
    packed = pack_bitmap(weight)
    assert packed.bits_per_weight == pytest.approx(bits)
    assert packed.nbytes * 8 == pytest.approx(bits * 4 * 5120)


def example(**changes):
    return dataclasses.replace(pack_bitmap(torch.ones(2, 12)), **changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pack_bitmap(torch.ones(4)),
            "weight is torch.float32 [4]; use a matrix [out, in] of float32, float16",
        ),
        (
            lambda: pack_bitmap(torch.ones(4, 4).double()),
            "weight is torch.float64 [4, 4]; use a matrix",
        ),
        (
            lambda: unpack_bitmap(example(values=torch.ones(2, 16))),
            "values are [2, 16]; a bitmap has them in one row",
        ),
        (
            lambda: unpack_bitmap(example(width=17)),
            "bits are torch.uint8 [2, 2]; a weight [2, 17] needs torch.uint8",
        ),
        (
            lambda: unpack_bitmap(example(bits=torch.ones(2, 2))),
            "bits are torch.float32 [2, 2]; a weight [2, 12]",
        ),
        (
            lambda: unpack_bitmap(example(starts=torch.zeros(2, 1).long())),
            "starts are torch.int64 [2, 1]; a weight [2, 12] needs torch.int32 [2, 1]",
        ),
        (
            lambda: unpack_bitmap(example(starts=torch.zeros(1, 1).int())),
            "starts are torch.int32 [1, 1]; a weight",
        ),
        (
            lambda: unpack_bitmap_reference(example(values=torch.ones(24))),
            "bits ask for 32 values with the filling; there are 24",
        ),
    ],
)
def test_bad_input_is_one_line(call, message):
    with refused_in_one_line(re.escape(message)):
        call()


def test_more_values_than_starts_can_address_are_refused(monkeypatch):
    monkeypatch.setattr(bitmap, "MOST_VALUES", 15)
    assert isinstance(pack_bitmap(torch.ones(1, 8)), Bitmap)
    with pytest.raises(UserError, match=r"weight \[2, 8\] has 16 values; a bitmap holds 15"):
        pack_bitmap(torch.ones(2, 8))


@needs_triton
def test_it_compiles_for_hopper_without_spills():
    printed = compile_apart(
        """
import torch
from prunebook.kernels.formats.bitmap import Bitmap, launch_unpack_bitmap
with compiled_for() as found:
    for dtype in (torch.bfloat16, torch.float32):
        bits = torch.zeros(64, 512, dtype=torch.uint8)
        starts = torch.zeros(64, 8, dtype=torch.int32)
        launch_unpack_bitmap(Bitmap(torch.zeros(1024, dtype=dtype), bits, starts, 4096))
for kernel in found:
    print(kernel.stack, kernel.registers, "st.global.v4.b32" in kernel.ptx)
"""
    )
    for line in printed.splitlines():
        stack, registers, vectors = line.split()
        assert (stack, vectors) == ("0", "True")
        assert int(registers) <= 80

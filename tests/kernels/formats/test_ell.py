"""ELL weights with deltas: the layout, exact round trips, wide gaps, and what does not fit."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.comparing import DTYPES, same_bits
from tests.kernels.formats.sparse_weights import sparse, special
from tests.refusals import refused_in_one_line

from prunebook.kernels.formats.ell import Ell, pack_ell, unpack_ell


def test_the_layout_by_hand():
    """Gaps of 2, 0 and 255; of 256 and 600, with zeros of delta 255 on the way; and an empty
    row."""
    weight = torch.zeros(3, 900)
    weight[0, [2, 3, 259]] = torch.tensor([1.0, 2, 3])
    weight[1, [256, 857]] = torch.tensor([4.0, 5])
    packed = pack_ell(weight)
    assert packed.values.tolist() == [[1, 2, 3, 0, 0, 0, 0, 0], [0, 4, 0, 0, 5, 0, 0, 0], [0] * 8]
    assert packed.deltas.tolist() == [
        [2, 0, 255, 0, 0, 0, 0, 0],
        [255, 0, 255, 255, 88, 0, 0, 0],
        [0] * 8,
    ]
    assert packed.deltas.dtype == torch.uint8
    assert packed.shape == (3, 900)
    assert torch.equal(unpack_ell(packed), weight)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 5),
    st.one_of(st.integers(0, 20), st.integers(0, 1600)),
    st.sampled_from([0, 0.002, 0.02, 0.3, 1]),
    st.sampled_from(DTYPES),
    st.integers(0, 10**6),
)
def test_the_round_trip_is_exact(rows, width, share, dtype, seed):
    weight = sparse(rows, width, share, dtype, seed)
    packed = pack_ell(weight)
    assert same_bits(unpack_ell(packed), weight)
    again = pack_ell(unpack_ell(packed))
    assert torch.equal(again.values, packed.values)
    assert torch.equal(again.deltas, packed.deltas)


@pytest.mark.parametrize("column", [0, 254, 255, 256, 257, 511, 512, 513, 1023])
def test_a_lonely_weight_anywhere(column):
    weight = torch.zeros(1, 1024)
    weight[0, column] = 1.0
    packed = pack_ell(weight)
    assert packed.values.shape == (1, 8)
    assert torch.equal(unpack_ell(packed), weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_but_zeros_keeps_its_bits(dtype):
    weight, expected = special(dtype)
    assert same_bits(unpack_ell(pack_ell(weight)), expected)


def test_any_strides_are_packed():
    weight = sparse(30, 7, 0.3)
    assert torch.equal(unpack_ell(pack_ell(weight.T)), weight.T)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 2.4), (torch.float32, 4.0)])
def test_bits_a_weight(dtype, bits):
    weight = torch.zeros(4, 5120, dtype=dtype)
    weight[:, ::10] = 1
    packed = pack_ell(weight)
    assert packed.bits_per_weight == pytest.approx(bits)
    assert packed.nbytes * 8 == pytest.approx(bits * 4 * 5120)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pack_ell(torch.ones(4)),
            "weight is torch.float32 [4]; use a matrix [out, in] of float32, float16 or",
        ),
        (
            lambda: unpack_ell(Ell(torch.ones(8), torch.ones(8).byte(), 9)),
            "values are [8]; use [out, n] with n a multiple of 8",
        ),
        (
            lambda: unpack_ell(Ell(torch.ones(2, 9), torch.ones(2, 9).byte(), 9)),
            "values are [2, 9]; use [out, n] with n a multiple of 8",
        ),
        (
            lambda: unpack_ell(Ell(torch.ones(2, 8), torch.ones(2, 8), 9)),
            "deltas are torch.float32 [2, 8]; values [2, 8] need torch.uint8 of that shape",
        ),
        (
            lambda: unpack_ell(Ell(torch.ones(2, 8), torch.ones(1, 8).byte(), 9)),
            "deltas are torch.uint8 [1, 8]; values [2, 8] need torch.uint8 of that shape",
        ),
    ],
)
def test_bad_input_is_one_line(call, message):
    with refused_in_one_line(re.escape(message)):
        call()

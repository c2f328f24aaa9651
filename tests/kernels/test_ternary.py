"""Ternary codes in two bits: the layout, exact round trips, products that are whole numbers, and bad input."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.kernels.ternary import pack_ternary, ternary_linear, unpack_ternary


def random_codes(rows, columns, seed=0):
    return torch.randint(-1, 2, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def random_x(*shape, seed=1):
    return torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed)).to(torch.int8)


def test_the_layout_by_hand():
    """-1, 0, 1, -1 | 1: digits 0, 1, 2, 0 with the first lowest are 0b00_10_01_00; what fills up is code 0, digit 1."""
    packed = pack_ternary(torch.tensor([[-1, 0, 1, -1, 1]]))
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [[0b00_10_01_00, 0b01_01_01_10]]
    assert unpack_ternary(packed, 5).tolist() == [[-1, 0, 1, -1, 1]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.integers(0, 67), st.integers(0, 10**6), st.sampled_from([torch.int8, torch.float32]))
def test_the_round_trip_is_exact(rows, columns, seed, dtype):
    codes = random_codes(rows, columns, seed).to(dtype)
    packed = pack_ternary(codes)
    assert packed.shape == (rows, -(-columns // 4))
    again = unpack_ternary(packed, columns)
    assert again.dtype == torch.int8
    assert torch.equal(again.to(dtype), codes)


def test_strides_do_not_matter():
    codes = random_codes(11, 6).T
    packed = pack_ternary(codes)
    assert torch.equal(packed, pack_ternary(codes.contiguous()))
    apart = packed.repeat_interleave(2, dim=1)[:, ::2]
    assert not apart.is_contiguous()
    assert torch.equal(unpack_ternary(apart, 11), codes)


@pytest.mark.parametrize("columns", [4, 576, 1536])
def test_two_bits_a_weight(columns):
    packed = pack_ternary(random_codes(64, columns))
    assert 8 * packed.numel() * packed.element_size() == 2 * 64 * columns


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 63), st.integers(1, 7), st.integers(0, 10**6))
def test_the_product_is_that_of_whole_numbers(rows, columns, tokens, seed):
    codes, x = random_codes(rows, columns, seed), random_x(2, tokens, columns, seed=seed)
    x_scale = 2.0 ** torch.randint(-3, 4, (2, tokens, 1), generator=torch.Generator().manual_seed(seed))
    scale, bias = torch.tensor(0.5), torch.arange(rows).float()
    found = ternary_linear(x, pack_ternary(codes), scale, x_scale, bias)
    sums = x.long() @ codes.long().T
    assert found.dtype == torch.float32
    assert torch.equal(found, sums * 0.5 / x_scale + bias)  # all of it is exact in float32
    assert torch.equal(ternary_linear(x, pack_ternary(codes), scale, x_scale), sums * 0.5 / x_scale)


def test_a_width_beyond_the_whole_numbers_of_float32_stays_exact():
    """2 ** 24 + 2 cannot be summed in float32 one by one: 131,073 times 128, less 126."""
    columns = 131_073
    x, codes = torch.full((1, columns), -128, dtype=torch.int8), torch.full((1, columns), -1, dtype=torch.int8)
    x[0, 0] = -1
    expected = 128 * (columns - 1) + 1
    found = ternary_linear(x, pack_ternary(codes), torch.ones(()), torch.ones(1, 1))
    assert found.item() == float(torch.tensor(expected).float())
    assert expected > 2**24


def test_autocast_does_not_round_the_sums():
    codes, x = random_codes(8, 60), random_x(5, 60)
    asked = x, pack_ternary(codes), torch.ones(()), torch.ones(5, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = ternary_linear(*asked)
    assert torch.equal(found, (x.long() @ codes.long().T).float())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_ternary(torch.zeros(4)), "codes [4] cannot be packed; use a matrix [out, in]"),
        (lambda: pack_ternary(torch.tensor([[0.0, 0.5]])), "codes hold values other than -1, 0 and 1; quantise"),
        (lambda: pack_ternary(torch.tensor([[2]])), "codes hold values other than -1, 0 and 1"),
        (lambda: pack_ternary(torch.tensor([[float("nan")]])), "codes hold values other than -1, 0 and 1"),
        (
            lambda: unpack_ternary(torch.zeros(2, 2, dtype=torch.uint8), 9),
            "packed is torch.uint8 [2, 2]; 9 columns need torch.uint8 [out, 3]",
        ),
        (
            lambda: unpack_ternary(torch.zeros(2, 2, dtype=torch.int8), 8),
            "packed is torch.int8 [2, 2]; 8 columns need torch.uint8 [out, 2]",
        ),
        (
            lambda: ternary_linear(torch.ones(1, 4), pack_ternary(random_codes(2, 4)), torch.ones(()), torch.ones(1)),
            "x is torch.float32; ternary_linear multiplies torch.int8, as from absmax_int8",
        ),
        (
            lambda: ternary_linear(random_x(1, 5), pack_ternary(random_codes(2, 4)), torch.ones(()), torch.ones(1, 1)),
            "packed is torch.uint8 [2, 1]; 5 columns need torch.uint8 [out, 2]",
        ),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)

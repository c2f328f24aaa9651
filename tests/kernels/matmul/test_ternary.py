"""Ternary codes in two bits: the layout, exact round trips, products that are whole numbers, and
bad input."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton
from tests.refusals import refused_in_one_line

from prunebook.kernels.matmul.ternary import (
    launch_ternary,
    pack_ternary,
    ternary_linear,
    ternary_linear_reference,
    unpack_ternary,
)


def random_codes(rows, columns, seed=0):
    return torch.randint(
        -1, 2, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.int8
    )


def random_x(*shape, seed=1):
    return torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed)).to(
        torch.int8
    )


def test_the_layout_by_hand():
    """-1, 0, 1, -1 | 1: digits 0, 1, 2, 0 with the first lowest are 0b00_10_01_00; what fills up is
    code 0, digit 1."""
    packed = pack_ternary(torch.tensor([[-1, 0, 1, -1, 1]]))
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [[0b00_10_01_00, 0b01_01_01_10]]
    assert unpack_ternary(packed, 5).tolist() == [[-1, 0, 1, -1, 1]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 67),
    st.integers(0, 10**6),
    st.sampled_from([torch.int8, torch.float32]),
)
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
    codes = random_codes(rows, columns, seed)
    x = random_x(2, tokens, columns, seed=seed)
    x_scale = 2.0 ** torch.randint(
        -3, 4, (2, tokens, 1), generator=torch.Generator().manual_seed(seed)
    )
    scale = torch.tensor(0.5)
    bias = torch.arange(rows).float()
    found = ternary_linear(x, pack_ternary(codes), scale, x_scale, bias)
    sums = x.long() @ codes.long().T
    assert found.dtype == torch.float32
    assert torch.equal(found, sums * 0.5 / x_scale + bias)  # all of it is exact in float32
    assert torch.equal(ternary_linear(x, pack_ternary(codes), scale, x_scale), sums * 0.5 / x_scale)


def test_rows_can_have_scales_of_their_own():
    """As weights that read one input and multiply as one, the packed rows of one below the
    other."""
    first = random_codes(3, 20)
    second = random_codes(5, 20, seed=2)
    x = random_x(4, 20)
    x_scale = torch.tensor([[2.0], [0.5], [1.0], [4.0]])
    scale = torch.tensor([0.25] * 3 + [8.0] * 5)
    together = ternary_linear(
        x, torch.cat([pack_ternary(first), pack_ternary(second)]), scale, x_scale
    )
    parts = (first, torch.tensor(0.25)), (second, torch.tensor(8.0))
    apart = [ternary_linear(x, pack_ternary(codes), one, x_scale) for codes, one in parts]
    assert torch.equal(together, torch.cat(apart, 1))


def test_activations_of_floating_point():
    codes = random_codes(6, 33)
    x = torch.randn(2, 5, 33, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = ternary_linear(x, pack_ternary(codes), torch.tensor(0.5), bias=torch.ones(6))
    assert found.dtype == torch.float32
    assert torch.allclose(
        found.double(), x.double() @ codes.double().T * 0.5 + 1, rtol=1e-5, atol=1e-5
    )


@needs_triton
@pytest.mark.parametrize(
    ("rows", "columns", "tokens"), [(5, 7, 1), (70, 300, 3), (64, 1100, 17), (1, 257, 2)]
)
def test_the_kernel_sums_whole_numbers_exactly(rows, columns, tokens):
    """Split over K or not, widths that fill no byte; scales and bias rounded in the same order."""
    codes = random_codes(rows, columns).to(DEVICE)
    x = random_x(tokens, columns).to(DEVICE)
    packed = pack_ternary(codes)
    generator = torch.Generator().manual_seed(2)
    x_scale = (torch.rand(tokens, 1, generator=generator) + 0.1).to(DEVICE)
    for scale, bias in (
        (torch.tensor(0.37), None),
        (torch.rand(rows), torch.randn(rows, generator=generator)),
    ):
        scale = scale.to(DEVICE)
        bias = None if bias is None else bias.to(DEVICE)
        expected = (x.cpu().long() @ codes.cpu().long().T).to(DEVICE).float() * (scale / x_scale)
        expected = expected if bias is None else expected + bias
        assert torch.equal(launch_ternary(x, packed, scale, x_scale, bias), expected)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_kernel_with_floats_is_as_close_as_a_plain_product(dtype):
    codes = random_codes(40, 600).to(DEVICE)
    x = torch.randn(3, 600, generator=torch.Generator().manual_seed(5)).to(dtype).to(DEVICE)
    exact = x.double() @ codes.double().T * 0.37
    scale = torch.tensor(0.37, device=DEVICE)
    error, plain = (
        (one(x, pack_ternary(codes), scale).double() - exact).abs().max()
        for one in (launch_ternary, ternary_linear_reference)
    )
    assert error <= 2 * plain


@needs_triton
def test_compiled_for_hopper_it_multiplies_on_tensor_cores():
    printed = compile_apart(
        """
import json, torch
from prunebook.kernels.matmul.ternary import launch_ternary
with compiled_for() as found:
    for rows, width in ((4096, 4096), (22016, 4096)):
        packed = torch.zeros(rows, width // 4, dtype=torch.uint8)
        for tokens in (1, 32):
            x = torch.zeros(tokens, width)
            launch_ternary(x.to(torch.int8), packed, torch.ones(()), torch.ones(tokens, 1))
            launch_ternary(x.bfloat16(), packed, torch.ones(()))
print(json.dumps([
    (one.name, one.stack, "s32.s8.s8" in one.ptx, "f32.bf16.bf16" in one.ptx) for one in found
]))
"""
    )
    found = json.loads(printed.splitlines()[-1])
    assert [one for one in found if one[0] == "ternary_kernel"] == [
        ["ternary_kernel", 0, True, False],
        ["ternary_kernel", 0, False, True],
    ] * 4
    # 4,096 rows are few programs: K is split
    assert [one[1] for one in found if one[0] == "add_kernel"] == [0] * 4


def test_a_width_beyond_the_whole_numbers_of_float32_stays_exact():
    """2 ** 24 + 2 cannot be summed in float32 one by one: 131,073 times 128, less 126."""
    columns = 131_073
    x = torch.full((1, columns), -128, dtype=torch.int8)
    codes = torch.full((1, columns), -1, dtype=torch.int8)
    x[0, 0] = -1
    expected = 128 * (columns - 1) + 1
    found = ternary_linear(x, pack_ternary(codes), torch.ones(()), torch.ones(1, 1))
    assert found.item() == float(torch.tensor(expected).float())
    assert expected > 2**24


def test_autocast_does_not_round_the_sums():
    codes = random_codes(8, 60)
    x = random_x(5, 60)
    asked = x, pack_ternary(codes), torch.ones(()), torch.ones(5, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = ternary_linear(*asked)
    assert torch.equal(found, (x.long() @ codes.long().T).float())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pack_ternary(torch.zeros(4)),
            "codes [4] cannot be packed; use a matrix [out, in]",
        ),
        (
            lambda: pack_ternary(torch.tensor([[0.0, 0.5]])),
            "codes hold values other than -1, 0 and 1; quantise",
        ),
        (lambda: pack_ternary(torch.tensor([[2]])), "codes hold values other than -1, 0 and 1"),
        (
            lambda: pack_ternary(torch.tensor([[float("nan")]])),
            "codes hold values other than -1, 0 and 1",
        ),
        (
            lambda: unpack_ternary(torch.zeros(2, 2, dtype=torch.uint8), 9),
            "packed is torch.uint8 [2, 2]; 9 columns need torch.uint8 [out, 3]",
        ),
        (
            lambda: unpack_ternary(torch.zeros(2, 2, dtype=torch.int8), 8),
            "packed is torch.int8 [2, 2]; 8 columns need torch.uint8 [out, 2]",
        ),
        (
            lambda: ternary_linear(
                torch.ones(1, 4), pack_ternary(random_codes(2, 4)), torch.ones(()), torch.ones(1)
            ),
            "x is torch.float32; use torch.int8 with an x_scale, as from absmax_int8, or floats "
            "without one",
        ),
        (
            lambda: ternary_linear(
                random_x(1, 5), pack_ternary(random_codes(2, 4)), torch.ones(()), torch.ones(1, 1)
            ),
            "packed is torch.uint8 [2, 1]; 5 columns need torch.uint8 [out, 2]",
        ),
        (
            lambda: ternary_linear(
                random_x(1, 4), pack_ternary(random_codes(2, 4)), torch.ones(3), torch.ones(1, 1)
            ),
            "scale has shape [3]; 2 rows need [] or [2]",
        ),
        (
            lambda: ternary_linear(
                random_x(1, 4),
                pack_ternary(random_codes(2, 4)),
                torch.ones(()),
                torch.ones(1, 1),
                torch.ones(1),
            ),
            "bias has shape [1]; 2 rows need [2]",
        ),
        (
            lambda: ternary_linear(
                random_x(1, 4), pack_ternary(random_codes(2, 4)), torch.ones(()), torch.ones(2, 1)
            ),
            "x_scale has shape [2, 1]; x [1, 4] needs [1, 1]",
        ),
    ],
)
def test_bad_input_is_one_line(call, message):
    with refused_in_one_line(re.escape(message)):
        call()

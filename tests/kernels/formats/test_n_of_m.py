"""Packed n:m weights: the layouts, exact round trips, and what cannot be packed."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.comparing import DTYPES, same_bits
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton
from tests.random_tensors import normal
from tests.refusals import refused_in_one_line

from prunebook.errors import UserError
from prunebook.kernels.formats.n_of_m import (
    Packed,
    is_n_of_m,
    launch_unpack_2_4,
    to_semi_structured,
    unpack_2_4_reference,
    unpack_n_of_m,
)
from prunebook.kernels.score import Score
from prunebook.kernels.topk.n_of_m import pack_n_of_m, select_n_of_m


def test_the_layout_of_2_4_by_hand():
    """Places 0 and 1, 1 and 3, 2 and 3, 0 and 3 | 0 and 2: codes 0b0100, 0b1101, 0b1110, 0b1100 |
    0b1000."""
    weight = torch.tensor([[1.0, 2, 0, 0, 0, 3, 0, 4, 0, 0, 5, 6, 7, 0, 0, 8, 9, 0, 10, 0]])
    packed = pack_n_of_m(weight, 2, 4)
    assert packed.values.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]
    assert packed.codes.dtype == torch.int16
    assert [word & 0xFFFF for word in packed.codes[0].tolist()] == [0b1100_1110_1101_0100, 0b1000]
    assert torch.equal(unpack_n_of_m(packed), weight)


def test_the_layout_of_any_other_by_hand():
    weight = torch.tensor([[0.0, 1, 0, 2, 0, 0, 3, 4]])
    packed = pack_n_of_m(weight, 4, 8)
    assert packed.values.tolist() == [[1, 2, 3, 4]]
    assert packed.codes.tolist() == [[0b11001010]]
    assert packed.shape == (1, 8)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([(1, 4), (2, 4), (3, 4), (4, 8), (7, 8), (8, 16)]),
    st.integers(0, 5),
    st.integers(0, 9),
    st.sampled_from(DTYPES),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_the_round_trip_is_exact(pattern, rows, groups, dtype, zeros, seed):
    """Also where groups hold fewer than n other than zero, and where those zeros are negative."""
    n, m = pattern
    weight = normal(rows, groups * m, seed=seed)
    weight = torch.where(
        normal(rows, groups * m, seed=seed + 1).sigmoid() < zeros, weight.sign() * 0.0, weight
    )
    weight = weight.to(dtype).to(DEVICE)
    packed = select_n_of_m(Score(weight), n, m, want="packed")
    assert packed.values.shape == (rows, groups * n)
    assert same_bits(unpack_n_of_m(packed), weight)
    again = pack_n_of_m(weight, n, m)
    assert torch.equal(unpack_n_of_m(again), weight)
    assert same_bits(unpack_n_of_m(pack_n_of_m(unpack_n_of_m(again), n, m)), unpack_n_of_m(again))


def test_negative_zeros_that_are_kept_stay_and_others_turn_positive():
    weight = torch.tensor([[-0.0, -0.0, -0.0, 5.0]])
    assert unpack_n_of_m(pack_n_of_m(weight, 2, 4)).signbit().tolist() == [
        [False, False, True, False]
    ]


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 4), (3, 36), (2, 576), (1, 2100)])
def test_the_kernel_unpacks_bit_by_bit(dtype, shape):
    weight = normal(*shape).to(dtype).to(DEVICE)
    weight[0, :4] = torch.tensor([-0.0, 0, -0.0, 0])
    packed = select_n_of_m(Score(weight), 2, 4, want="packed")
    torch.use_deterministic_algorithms(True, warn_only=True)  # memory that was never written is NaN
    try:
        found = launch_unpack_2_4(packed)
    finally:
        torch.use_deterministic_algorithms(False)
    assert same_bits(found, weight)
    assert same_bits(unpack_2_4_reference(packed), weight)


@needs_triton
def test_any_strides_are_packed_and_unpacked():
    weight = normal(16, 12).to(DEVICE)
    select_n_of_m(Score(weight.T), 2, 4)
    packed = pack_n_of_m(weight.T, 2, 4)
    assert torch.equal(unpack_n_of_m(packed), weight.T)
    apart = [one.repeat_interleave(2, dim=1)[:, ::2] for one in (packed.values, packed.codes)]
    assert not apart[0].is_contiguous()
    assert torch.equal(unpack_n_of_m(Packed(*apart, 2, 4)), weight.T)
    assert torch.equal(launch_unpack_2_4(Packed(*apart, 2, 4)), weight.T)


@pytest.mark.parametrize(
    ("pattern", "bits"), [((2, 4), 9), ((1, 4), 5), ((4, 8), 9), ((8, 16), 9), ((3, 4), 13)]
)
def test_bits_a_weight(pattern, bits):
    packed = select_n_of_m(Score(normal(4, 576).bfloat16()), *pattern, want="packed")
    assert 8 * (packed.values.nbytes + packed.codes.nbytes) == bits * 4 * 576


def test_whether_a_weight_is_n_of_m():
    weight = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, -0.0], [0, 1, 1, 1, 0, 0, 0, 0]])
    assert is_n_of_m(weight[:1], 2, 4)
    assert not is_n_of_m(weight, 2, 4)
    assert is_n_of_m(weight, 4, 8)
    assert not is_n_of_m(weight[:, :6], 2, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pack_n_of_m(torch.ones(3, 8).tril(2), 2, 4),
            "weight [3, 8] is not 2:4: 3 of 6 groups hold more than 2 weights other than 0; "
            "prune it with that pattern",
        ),
        (
            lambda: pack_n_of_m(torch.ones(3, 6), 2, 4),
            "weight has 6 inputs, which pattern 2:4 does not divide",
        ),
        (
            lambda: pack_n_of_m(torch.tensor([[float("nan"), 0, 0, 0]]), 2, 4),
            "scores of row 0 hold NaN or infinity",
        ),
        (
            lambda: unpack_n_of_m(
                Packed(torch.ones(2, 18), torch.zeros(2, 2, dtype=torch.int16), 2, 4)
            ),
            "codes are torch.int16 [2, 2]; a 2:4 weight [2, 36] needs torch.int16 [2, 3]",
        ),
        (
            lambda: unpack_n_of_m(
                Packed(torch.ones(2, 4), torch.zeros(2, 1, dtype=torch.int32), 2, 4)
            ),
            "codes are torch.int32 [2, 1]; a 2:4 weight [2, 8] needs torch.int16 [2, 1]",
        ),
        (
            lambda: unpack_n_of_m(
                Packed(torch.ones(2, 4), torch.full((2, 1), 7, dtype=torch.uint8), 4, 8)
            ),
            "codes keep 6 weights; the values hold 8",
        ),
        (
            lambda: to_semi_structured(torch.ones(32, 64).half()),
            "weight [32, 64] is not 2:4; prune it with pattern='2:4' first",
        ),
        (
            lambda: to_semi_structured(torch.zeros(32, 64)),
            "weight is torch.float32; sparse tensor cores take float16 or bfloat16",
        ),
        (
            lambda: to_semi_structured(torch.zeros(32, 64).half()),
            "weight is on 'cpu'; sparse tensor cores need a CUDA device",
        ),
    ],
)
def test_bad_input_is_one_line(call, message):
    with refused_in_one_line(re.escape(message)):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="sparse tensor cores need a CUDA device")
def test_torch_multiplies_the_same_on_sparse_tensor_cores():
    weight = normal(128, 256).half().cuda()
    x = normal(64, 256, seed=1).half().cuda()
    select_n_of_m(Score(weight), 2, 4)
    found = torch.nn.functional.linear(
        x, to_semi_structured(unpack_n_of_m(pack_n_of_m(weight, 2, 4)))
    )
    torch.testing.assert_close(found, x @ weight.T, rtol=1e-2, atol=1e-1)
    with pytest.raises(UserError, match=r"weight \[3, 4\] does not go on sparse tensor cores: "):
        to_semi_structured(weight[:3, :4])


@needs_triton
def test_it_compiles_for_hopper_without_spills():
    printed = compile_apart(
        """
import torch
from prunebook.kernels.formats.n_of_m import Packed, launch_unpack_2_4
with compiled_for() as found:
    for dtype in (torch.bfloat16, torch.float32):
        codes = torch.zeros(64, 256, dtype=torch.int16)
        launch_unpack_2_4(Packed(torch.zeros(64, 2048, dtype=dtype), codes, 2, 4))
for kernel in found:
    print(kernel.stack, kernel.registers, "st.global.v4.b32" in kernel.ptx)
"""
    )
    for line in printed.splitlines():
        stack, registers, vectors = line.split()
        assert (stack, vectors) == ("0", "True")
        assert int(registers) <= 64

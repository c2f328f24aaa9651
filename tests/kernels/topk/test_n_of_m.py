"""n:m selection: the kernel and its reference beside a stable sort, on hard weights and strides."""

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
from prunebook.kernels.formats.n_of_m import pack_kept
from prunebook.kernels.score import Score
from prunebook.kernels.topk.n_of_m import (
    keep_n_of_m,
    launch_n_of_m,
    select_n_of_m,
    select_n_of_m_reference,
)
from prunebook.kernels.topk.rule import pack_bits
from prunebook.sparsity.patterns import NofM, keep_mask

pytestmark = pytest.mark.usefixtures("nan_memory")
PATTERNS = [(1, 4), (2, 4), (3, 4), (3, 8), (4, 8), (8, 16)]
FORMS = ["magnitude", "wanda", "ria"]


def hard_weight(rows, groups, m, dtype, seed=0):
    """Groups of five kinds: normal, ties, zeros of both signs, subnormals, and a few weights among
    zeros.

    Triton's interpreter widens subnormals of bfloat16 wrongly; there they are small normal numbers.
    """
    weight = normal(rows, groups, m, seed=seed)
    sign = weight.sign()
    tiny = torch.finfo(dtype).smallest_normal * (
        1 if dtype == torch.bfloat16 and DEVICE == "cpu" else 1 / 8
    )
    kinds = [
        weight,
        sign,
        0 * sign,
        tiny * (4 * weight).round(),
        torch.where(weight > 0.8, weight, 0 * sign),
    ]
    for first, kind in enumerate(kinds):
        weight[:, first :: len(kinds)] = kind[:, first :: len(kinds)]
    return weight.flatten(1).to(dtype).to(DEVICE)


def make_factors(form, rows, width, seed=5):
    """The factors of a `Score` of the form, by name."""
    if form == "magnitude":
        return {}
    columns, column_sums = normal(2, width, seed=seed).abs().to(DEVICE)
    if form == "wanda":
        return {"columns": columns}
    row_sums = normal(rows, seed=seed).abs().to(DEVICE) + 0.1
    return {"columns": columns, "column_sums": column_sums + 0.1, "row_sums": row_sums}


def by_sorting(scores, n, m):
    order = scores.unflatten(1, (-1, m)).argsort(dim=2, stable=True)
    return (
        torch.zeros(order.shape, dtype=torch.bool, device=DEVICE)
        .scatter_(2, order[..., m - n :], True)
        .flatten(1)
    )


def test_ties_go_from_the_left_by_hand():
    scores = torch.tensor([[1.0, 1, 1, 1, 2, 0, 0, 2], [0, -0.0, 0, 3, 5, 4, 4, 3]])
    kept = [[0, 0, 1, 1, 1, 0, 0, 1], [0, 0, 1, 1, 1, 0, 1, 0]]
    assert keep_n_of_m(scores, 2, 4).int().tolist() == kept


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.data(), st.integers(0, 10**6))
def test_the_rule_is_that_of_a_stable_sort_and_of_patterns(m, data, seed):
    n = data.draw(st.integers(1, m - 1))
    levels = data.draw(st.integers(1, 9))
    scores = (levels * normal(3, 4 * m, seed=seed)).round()
    keep = keep_n_of_m(scores, n, m)
    assert torch.equal(keep.to(DEVICE), by_sorting(scores.to(DEVICE), n, m))
    assert torch.equal(keep, keep_mask(scores, NofM(n, m)))


@needs_triton
@pytest.mark.parametrize(
    ("pattern", "dtype", "form"),
    [((2, 4), dtype, form) for dtype in DTYPES for form in FORMS]
    + [
        (pattern, *pair)
        for pattern in PATTERNS
        if pattern != (2, 4)
        for pair in zip(DTYPES, FORMS[::-1], strict=True)
    ],
)
def test_the_kernel_is_equal_bit_by_bit(pattern, dtype, form):
    n, m = pattern
    rows = 2
    weight = hard_weight(rows, 7, m, dtype)
    factors = make_factors(form, rows, 7 * m)
    before = weight.clone()
    keep = by_sorting(Score(weight, **factors).dense(), n, m)
    expected = pack_kept(weight, keep, n, m)

    written = weight.clone()
    packed = launch_n_of_m(Score(written, **factors), n, m, True, "packed")
    assert same_bits(written, weight.masked_fill(~keep, 0))
    assert same_bits(packed.values, expected.values)
    assert torch.equal(packed.codes, expected.codes)
    assert packed.codes.dtype == expected.codes.dtype

    assert torch.equal(launch_n_of_m(Score(weight, **factors), n, m, False, "mask"), keep)
    assert torch.equal(
        launch_n_of_m(Score(weight, **factors), n, m, False, "bits"), pack_bits(keep)
    )
    assert same_bits(weight, before)

    assert torch.equal(select_n_of_m_reference(Score(weight, **factors), n, m, False, "mask"), keep)
    assert select_n_of_m_reference(Score(weight, **factors), n, m, True, None) is None
    assert same_bits(weight, written)


@needs_triton
@pytest.mark.parametrize("groups", [1, 17, 521])
def test_odd_widths_and_several_programs_a_row(groups):
    weight = hard_weight(2, groups, 4, torch.bfloat16, seed=groups)
    factors = make_factors("wanda", 2, 4 * groups)
    expected = select_n_of_m_reference(Score(weight, **factors), 2, 4, False, "packed")
    found = launch_n_of_m(Score(weight, **factors), 2, 4, False, "packed")
    assert same_bits(found.values, expected.values)
    assert torch.equal(found.codes, expected.codes)
    bits = launch_n_of_m(Score(weight, **factors), 2, 4, True, "bits")
    assert torch.equal(bits, pack_bits(weight != 0) | bits)  # what is left is kept
    assert bits.shape == (2, -(-groups // 2))


@needs_triton
@pytest.mark.parametrize(
    "view", [lambda w: w.T, lambda w: w.T[:, :40], lambda w: w.T.contiguous()[::2, 4:44]]
)
def test_strides_do_not_matter(view):
    base = hard_weight(48, 1, 4, torch.float32, seed=3)
    weight = view(base)
    other = view(base.clone()).contiguous()
    outside = base.clone()
    view(outside).zero_()
    launch_n_of_m(Score(weight), 2, 4, True, None)
    select_n_of_m_reference(Score(other), 2, 4, True, None)
    assert same_bits(weight, other)
    view(base).zero_()
    assert same_bits(base, outside)  # nothing beside the view was written


@needs_triton
@pytest.mark.filterwarnings("ignore:overflow encountered")  # of the interpreter, at infinity
@pytest.mark.parametrize("select", [launch_n_of_m, select_n_of_m_reference])
@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused(select, bad):
    weight = normal(3, 8).to(DEVICE)
    weight[1, 6] = bad
    row = weight[1].clone()
    with refused_in_one_line("scores of row 1 hold NaN or infinity; weights and calibration"):
        select(Score(weight), 2, 4, True, None)
    assert same_bits(weight[1:2], row[None])
    overflowing = Score(
        torch.full((1, 4), 3e38, device=DEVICE), torch.full((4,), 2.0, device=DEVICE)
    )
    with pytest.raises(UserError, match="scores of row 0 hold NaN or infinity"):
        select(overflowing, 2, 4, True, None)


@needs_triton
def test_nothing_is_selected_from_nothing():
    for shape in [(0, 8), (3, 0)]:
        weight = torch.zeros(shape, device=DEVICE)
        for select in (launch_n_of_m, select_n_of_m_reference):
            packed = select(Score(weight), 2, 4, True, "packed")
            assert packed.shape == shape
            assert select(Score(weight), 4, 8, True, "mask").shape == shape


def test_the_weight_is_written_unless_it_is_not_to_be():
    weight = normal(2, 16).to(DEVICE)
    before = weight.clone()
    mask = select_n_of_m(Score(weight), 4, 8, write=False, want="mask")
    assert torch.equal(weight, before)
    assert select_n_of_m(Score(weight), 4, 8) is None
    assert torch.equal(weight, before * mask)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"want": "index"}, "want 'index' is unknown; use 'mask', 'bits', 'packed' or None"),
        ({"n": 4}, "pattern '4:4' is not allowed; n of m are kept, 0 < n < m, and m is 4, 8 or 16"),
        ({"n": 0}, "pattern '0:4' is not allowed"),
        ({"m": 5}, "pattern '2:5' is not allowed"),
        (
            {"score": Score(torch.zeros(4))},
            "weight is torch.float32 [4]; use a matrix [out, in] of a float dtype",
        ),
        ({"score": Score(torch.zeros(2, 4).int())}, "weight is torch.int32 [2, 4]; use a matrix"),
        (
            {"score": Score(torch.zeros(2, 6))},
            "weight has 6 inputs, which pattern 2:4 does not divide; use another one",
        ),
        (
            {"score": Score(torch.ones(2, 8), torch.ones(3))},
            "columns is torch.float32 [3]; a weight [2, 8] needs torch.float32 [8]",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with refused_in_one_line(re.escape(message)):
        select_n_of_m(**{"score": Score(torch.ones(2, 8)), "n": 2, "m": 4} | arguments)


@needs_triton
def test_it_compiles_for_hopper_without_spills():
    printed = compile_apart(
        """
import torch
from prunebook.kernels.topk import n_of_m
from prunebook.kernels.score import Score
n_of_m.refuse_not_finite = lambda finite: None  # nothing runs, so nothing is computed
weight, one = torch.zeros(64, 4096, dtype=torch.bfloat16), torch.ones(4096)
with compiled_for() as found:
    n_of_m.launch_n_of_m(Score(weight, one), 2, 4, True, "packed")
    n_of_m.launch_n_of_m(Score(weight, one, one, torch.ones(64)), 4, 8, False, "packed")
    n_of_m.launch_n_of_m(Score(weight), 8, 16, True, "bits")
    n_of_m.launch_n_of_m(Score(weight.float(), one), 2, 4, False, "mask")
for kernel in found:
    loads = ["ld.global.v2.b32" in kernel.ptx, "ld.global.v4.b32" in kernel.ptx]
    print(kernel.stack, kernel.registers, *loads)
"""
    )
    kernels = [line.split() for line in printed.splitlines()]
    assert len(kernels) == 4
    # a division keeps its return address there
    assert all(int(kernel[0]) <= 8 for kernel in kernels)
    assert all(int(kernel[1]) <= 168 for kernel in kernels)
    # four weights of 16 bits in one load
    assert [kernel[2] for kernel in kernels[:3]] == ["True"] * 3
    assert kernels[3][3] == "True"

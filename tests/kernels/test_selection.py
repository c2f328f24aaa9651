"""The rule of selection against a stable sort, masks in bits, and the functions that dispatch, on a
CPU."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.kernels.select import keep_largest, select_global, select_rows
from prunebook.kernels.selection import kth_smallest, pack_bits, unpack_bits

# Many ties, both zeros, infinities and arbitrary values.
SCORE = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1.0, 2.0, math.inf]) | st.floats(
    width=32, allow_nan=False
)
WEIGHT = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 1e-42]) | st.floats(-1e3, 1e3, width=32)


def kept_by_sorting(rows: np.ndarray, removed: int) -> np.ndarray:
    """All but the first `removed` of a stable ascending sort of each row."""
    keep = np.ones(rows.shape, dtype=bool)
    np.put_along_axis(keep, np.argsort(rows, axis=1, kind="stable")[:, :removed], False, axis=1)
    return keep


@st.composite
def matrix(draw, value=SCORE, most=24):
    height = draw(st.integers(1, 3))
    width = draw(st.integers(1, most))
    values = draw(st.lists(value, min_size=height * width, max_size=height * width))
    return np.array(values, dtype=np.float32).reshape(height, width)


@settings(max_examples=300, deadline=None)
@given(matrix(), st.data())
def test_keep_largest_equals_a_stable_sort(rows, data):
    removed = data.draw(st.integers(0, rows.shape[1]))
    assert np.array_equal(
        keep_largest(torch.from_numpy(rows), removed).numpy(), kept_by_sorting(rows, removed)
    )


@settings(max_examples=50, deadline=None)
@given(matrix(), st.data())
def test_each_row_can_have_a_count_of_its_own(rows, data):
    removed = data.draw(
        st.lists(st.integers(0, rows.shape[1]), min_size=len(rows), max_size=len(rows))
    )
    expected = np.concatenate(
        [kept_by_sorting(row[None], k) for row, k in zip(rows, removed, strict=True)]
    )
    assert np.array_equal(
        keep_largest(torch.from_numpy(rows), torch.tensor(removed)).numpy(), expected
    )


def test_kth_smallest_counts_from_one():
    rows = torch.tensor([[3.0, 1, 2], [7, 7, 0]])
    assert [kth_smallest(rows, k).flatten().tolist() for k in (1, 2, 3)] == [[1, 0], [2, 7], [3, 7]]


def test_selection_of_another_device_type_agrees_with_numpy():
    rows = torch.rand(5, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    for k in (1, 13, 40):
        assert torch.equal(rows.kthvalue(k, dim=1, keepdim=True).values, kth_smallest(rows, k))


def test_bits_by_hand():
    """Input 8 b + j is bit j of byte b; what fills up the last byte is 0."""
    keep = torch.tensor([[1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]]).bool()
    bits = pack_bits(keep)
    assert bits.dtype == torch.uint8
    assert bits.tolist() == [[0b00011001, 0b110]]
    assert torch.equal(unpack_bits(bits, 11), keep)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 40), st.integers(0, 10**6))
def test_bits_make_the_round_trip(rows, columns, seed):
    keep = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    assert torch.equal(unpack_bits(pack_bits(keep), columns), keep)


def test_bits_of_another_shape_are_refused():
    with pytest.raises(
        UserError,
        match=re.escape("bits are torch.uint8 [2, 3]; 11 columns need torch.uint8 [out, 2]"),
    ):
        unpack_bits(torch.zeros(2, 3, dtype=torch.uint8), 11)


def test_scores_by_hand():
    weight = torch.tensor([[-1.0, 2, 0], [4, -0.5, 3]])
    columns = torch.tensor([2.0, 1, 10])
    p = torch.tensor([5.0, 2.5, 3])
    q = torch.tensor([3.0, 7.5])
    assert Score(weight).dense().tolist() == [[1, 2, 0], [4, 0.5, 3]]
    assert Score(weight, columns).dense().tolist() == [[2, 2, 0], [8, 0.5, 30]]
    expected = [
        [2 * (1 / 5 + 1 / 3), 2 / 2.5 + 2 / 3, 0],
        [2 * (4 / 5 + 4 / 7.5), 0.5 / 2.5 + 0.5 / 7.5, 10 * 1.4],
    ]
    assert torch.allclose(
        Score(weight, columns, p, q).dense(), torch.tensor(expected), rtol=1e-6
    )


def test_a_selection_by_hand():
    """Magnitudes 1 2 0 2 | 4 3 3 3: two of each row go, ties from the left."""
    weight = torch.tensor([[-1.0, 2, 0, -2], [4, -3, 3, 3]])
    found = select_rows(weight, 2, want="mask")
    assert found.mask.int().tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]
    assert found.kept.tolist() == [2, 2]
    assert weight.tolist() == [[0, 2, 0, -2], [4, 0, 0, 3]]


def test_groups_are_pieces_of_rows_in_row_major_order():
    weight = torch.tensor([[1.0, 2, 3, 4, 6, 5], [6.0, 5, 4, 3, 2, 1]])
    found = select_rows(weight, torch.tensor([1, 0, 2, 0, 1, 1]), group=2, write=False, want="bits")
    assert found.kept.tolist() == [1, 2, 0, 2, 1, 1]
    assert unpack_bits(found.bits, 6).int().tolist() == [[0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]]
    assert weight[0].tolist() == [1, 2, 3, 4, 6, 5]


def test_layers_together_by_hand():
    """Of the magnitudes 3 1 | 1 2 1 the two ones that come first go."""
    layers = [torch.tensor([[3.0, -1]]), torch.tensor([[1.0], [2], [-1]])]
    found = select_global([Score(layer) for layer in layers], 2, want="mask")
    assert [one.mask.int().tolist() for one in found] == [[[1, 0]], [[0], [1], [1]]]
    assert [one.kept.tolist() for one in found] == [[1], [2]]
    assert [layer.flatten().tolist() for layer in layers] == [[3, 0], [0, 2, -1]]


@settings(max_examples=60, deadline=None)
@given(matrix(WEIGHT), st.data())
def test_a_scaled_weight_keeps_what_a_stable_sort_keeps(values, data):
    width = values.shape[1]
    columns = torch.tensor(
        data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=width, max_size=width))
    )
    removed = data.draw(st.integers(0, width))
    weight = torch.from_numpy(values)
    expected = kept_by_sorting((weight.abs() * columns).numpy(), removed)
    before = weight.clone()
    assert np.array_equal(
        select_rows(Score(weight, columns), removed, want="mask").mask.numpy(), expected
    )
    assert torch.equal(weight, before.masked_fill(~torch.from_numpy(expected), 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"removed": 7}, "removed reaches from 7 to 7; allowed is 0 to 6"),
        ({"removed": -1}, "removed reaches from -1 to -1; allowed is 0 to 6"),
        ({"removed": torch.tensor([1, 2, 3])}, "removed has shape [3]; 2 groups need [2]"),
        ({"group": 4}, "group 4 does not divide the 6 inputs of the weight"),
        ({"group": 0}, "group 0 does not divide the 6 inputs of the weight"),
        ({"want": "mode"}, "want 'mode' is unknown; use 'mask', 'bits' or None"),
        (
            {"factors": Factors(torch.ones(5))},
            "columns is torch.float32 [5]; a weight [2, 6] needs",
        ),
        (
            {"factors": Factors(torch.ones(6).double())},
            "columns is torch.float64 [6]; a weight [2, 6] needs",
        ),
        ({"factors": Factors(torch.ones(6), torch.ones(6))}, "factors are incomplete; shares need"),
        ({"weight": torch.ones(6)}, "weight [6] cannot be scored; use a matrix [out, in]"),
        (
            {"weight": torch.ones(2, 6, dtype=torch.int32)},
            "weight is torch.int32; use a dtype of floating point",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        select_rows(**{"weight": torch.ones(2, 6), "removed": 3} | arguments)


@pytest.mark.parametrize(
    ("value", "by"),
    [
        (math.nan, "weight"),
        (math.inf, "weight"),
        (-math.inf, "weight"),
        (math.nan, "columns"),
        (math.inf, "columns"),
    ],
)
def test_scores_that_are_not_finite_are_refused(value, by):
    weight = torch.ones(3, 4)
    columns = torch.ones(4)
    ({"weight": weight[1], "columns": columns}[by])[2] = value
    before = weight.clone()
    row = 1 if by == "weight" else 0
    with pytest.raises(
        UserError, match=f"scores of row {row} hold NaN or infinity; weights and calibration norms"
    ):
        select_rows(Score(weight, columns), 2)
    with pytest.raises(UserError, match=r"^scores hold NaN or infinity"):
        select_global([Score(weight, columns)], 2)
    assert torch.equal(weight.nan_to_num(7), before.nan_to_num(7))


def test_a_matrix_without_weights_has_nothing_to_remove():
    for shape in ((0, 4), (3, 0)):
        found = select_rows(torch.ones(shape), 0, want="mask")
        assert found.mask.shape == shape
        assert found.kept.tolist() == [0] * shape[0]

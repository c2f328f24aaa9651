"""Selection in rows, pieces of rows and layers on a CPU: by hand, by sorting, and its errors."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.sorting import WEIGHT, kept_by_sorting, matrix

from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.kernels.topk.rows import keep_largest, select_global, select_rows
from prunebook.kernels.topk.rule import unpack_bits


@settings(max_examples=300, deadline=None)
@given(matrix(), st.data())
def test_keep_largest_equals_a_stable_sort(rows, data):
    removed = data.draw(st.integers(0, rows.shape[1]))
    keep = keep_largest(torch.from_numpy(rows), removed)
    assert np.array_equal(keep.numpy(), kept_by_sorting(rows, removed))


@settings(max_examples=50, deadline=None)
@given(matrix(), st.data())
def test_each_row_can_have_a_count_of_its_own(rows, data):
    size = st.integers(0, rows.shape[1])
    removed = data.draw(st.lists(size, min_size=len(rows), max_size=len(rows)))
    expected = np.concatenate(
        [kept_by_sorting(row[None], k) for row, k in zip(rows, removed, strict=True)]
    )
    keep = keep_largest(torch.from_numpy(rows), torch.tensor(removed))
    assert np.array_equal(keep.numpy(), expected)


def test_a_selection_by_hand():
    """Magnitudes 1 2 0 2 | 4 3 3 3: two of each row go, ties from the left."""
    weight = torch.tensor([[-1.0, 2, 0, -2], [4, -3, 3, 3]])
    selection = select_rows(Score(weight), 2, want="mask")
    assert selection.mask.int().tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]
    assert selection.kept.tolist() == [2, 2]
    assert selection.bits is None
    assert weight.tolist() == [[0, 2, 0, -2], [4, 0, 0, 3]]


def test_groups_are_pieces_of_rows_in_row_major_order():
    weight = torch.tensor([[1.0, 2, 3, 4, 6, 5], [6.0, 5, 4, 3, 2, 1]])
    removed = torch.tensor([1, 0, 2, 0, 1, 1])
    selection = select_rows(Score(weight), removed, group=2, write=False, want="bits")
    assert selection.kept.tolist() == [1, 2, 0, 2, 1, 1]
    kept = unpack_bits(selection.bits, 6).int().tolist()
    assert kept == [[0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]]
    assert selection.mask is None
    assert weight[0].tolist() == [1, 2, 3, 4, 6, 5]


def test_layers_together_by_hand():
    """Of the magnitudes 3 1 | 1 2 1 the two ones that come first go."""
    layers = [torch.tensor([[3.0, -1]]), torch.tensor([[1.0], [2], [-1]])]
    selections = select_global([Score(layer) for layer in layers], 2, want="mask")
    masks = [selection.mask.int().tolist() for selection in selections]
    assert masks == [[[1, 0]], [[0], [1], [1]]]
    assert [selection.kept.tolist() for selection in selections] == [[1], [2]]
    assert [layer.flatten().tolist() for layer in layers] == [[3, 0], [0, 2, -1]]


def test_given_scores_stand_in_the_weight_s_place():
    """Scores of any sign: the lowest is -3."""
    scores = torch.tensor([[2.0, -3, 1]])
    selection = select_rows(Score(scores, given=True), 1, write=False, want="mask")
    assert selection.mask.tolist() == [[True, False, True]]


@settings(max_examples=60, deadline=None)
@given(matrix(WEIGHT), st.data())
def test_a_scaled_weight_keeps_what_a_stable_sort_keeps(values, data):
    width = values.shape[1]
    factor = st.sampled_from([0.0, 0.5, 1.0, 3.0])
    columns = torch.tensor(data.draw(st.lists(factor, min_size=width, max_size=width)))
    removed = data.draw(st.integers(0, width))
    weight = torch.from_numpy(values)
    expected = torch.from_numpy(kept_by_sorting((weight.abs() * columns).numpy(), removed))
    before = weight.clone()
    assert torch.equal(select_rows(Score(weight, columns), removed, want="mask").mask, expected)
    assert torch.equal(weight, before.masked_fill(~expected, 0))


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
            {"score": Score(torch.ones(2, 6), torch.ones(5))},
            "columns is torch.float32 [5]; a weight [2, 6] needs",
        ),
        (
            {"score": Score(torch.ones(6))},
            "weight [6] cannot be scored; use a matrix [out, in]",
        ),
        (
            {"score": Score(torch.ones(2, 6, dtype=torch.int32))},
            "weight is torch.int32; use a dtype of floating point",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        select_rows(**{"score": Score(torch.ones(2, 6)), "removed": 3} | arguments)


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
    {"weight": weight[1], "columns": columns}[by][2] = value
    row = {"weight": 1, "columns": 0}[by]
    before = weight.clone()
    with pytest.raises(
        UserError, match=f"scores of row {row} hold NaN or infinity; weights and calibration norms"
    ):
        select_rows(Score(weight, columns), 2)
    with pytest.raises(UserError, match=r"^scores hold NaN or infinity"):
        select_global([Score(weight, columns)], 2)
    assert torch.equal(weight.nan_to_num(7), before.nan_to_num(7))


def test_a_matrix_without_weights_has_nothing_to_remove():
    for shape in ((0, 4), (3, 0)):
        selection = select_rows(Score(torch.ones(shape)), 0, want="mask")
        assert selection.mask.shape == shape
        assert selection.kept.tolist() == [0] * shape[0]

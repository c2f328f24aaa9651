"""The rule of selection against a stable sort, masks in bits, and scores that are not finite."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.sorting import kept_by_sorting, matrix

from prunebook.errors import UserError
from prunebook.kernels.topk.rule import (
    finite_rows,
    keep_largest_reference,
    kth_smallest,
    pack_bits,
    refuse_not_finite,
    unpack_bits,
)


@settings(max_examples=100, deadline=None)
@given(matrix(), st.data())
def test_the_rule_equals_a_stable_sort(rows, data):
    removed = data.draw(st.integers(0, rows.shape[1]))
    keep = keep_largest_reference(torch.from_numpy(rows), removed)
    assert np.array_equal(keep.numpy(), kept_by_sorting(rows, removed))


def test_no_rows_keep_nothing():
    assert keep_largest_reference(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).numel() == 0


def test_kth_smallest_counts_from_one():
    rows = torch.tensor([[3.0, 1, 2], [7, 7, 0]])
    assert [kth_smallest(rows, k).flatten().tolist() for k in (1, 2, 3)] == [[1, 0], [2, 7], [3, 7]]


def test_selection_of_another_device_type_agrees_with_numpy():
    rows = torch.rand(5, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    for k in (1, 13, 40):
        assert torch.equal(rows.kthvalue(k, dim=1, keepdim=True).values, kth_smallest(rows, k))


def test_bits_by_hand():
    """Input 8 b + j is bit j of byte b; bits beyond the inputs are 0."""
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


def test_rows_with_nan_or_infinity_are_not_finite():
    scores = torch.tensor([[1.0, 2], [math.nan, 0], [0, math.inf]])
    assert finite_rows(scores).tolist() == [True, False, False]
    assert finite_rows(torch.zeros(2, 0)).tolist() == [True, True]


def test_the_error_names_the_first_row_that_is_not_finite():
    refuse_not_finite(torch.tensor([True, True]))
    finite = torch.tensor([True, False, False])
    with pytest.raises(UserError, match=r"^scores of row 1 hold NaN or infinity"):
        refuse_not_finite(finite)
    with pytest.raises(UserError, match=r"^scores hold NaN or infinity"):
        refuse_not_finite(finite, rows=False)

"""Masks worked by hand, and against a stable sort for any scores."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.sorting import SCORE, kept_by_sorting, matrix

from prunebook.criteria.magnitude import magnitude_score
from prunebook.criteria.ria import ria_score
from prunebook.criteria.wanda import wanda_score
from prunebook.errors import UserError
from prunebook.kernels.score import Score
from prunebook.sparsity.patterns import (
    ExactCount,
    NofM,
    Unstructured,
    check_width,
    count_removed,
    keep_mask,
    keep_masks,
    make_pattern,
)


def bits(mask) -> list[list[int]]:
    return mask.int().tolist()


def test_rows_remove_the_lowest_index_of_a_tie():
    scores = torch.tensor([[5.0, 1, 1, 1, 0, 9], [2, 2, 2, 2, 2, 2]])
    assert bits(keep_mask(scores, Unstructured(0.5))) == [[1, 0, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1]]


def test_row_counts_are_floors():
    scores = torch.tensor([[3.0, 1, 2, 5, 4]])
    assert bits(keep_mask(scores, Unstructured(0.5))) == [[1, 0, 0, 1, 1]]  # floor(2.5) = 2
    assert bits(keep_mask(scores, Unstructured(0.19))) == [[1, 1, 1, 1, 1]]  # floor(0.95) = 0
    assert bits(keep_mask(scores, Unstructured(0.99))) == [[0, 0, 0, 1, 0]]  # floor(4.95) = 4


def test_layer_ranks_over_all_rows_with_ties_by_flat_index():
    scores = torch.tensor([[1.0, 7, 8], [1, 1, 9]])
    assert bits(keep_mask(scores, Unstructured(0.5, "layer"))) == [[0, 1, 1], [0, 0, 1]]
    assert bits(keep_mask(scores, Unstructured(0.34, "layer"))) == [
        [0, 1, 1],
        [0, 1, 1],
    ]  # two of three equal ones


def test_model_ranks_over_all_layers_with_ties_in_the_order_given():
    first = torch.tensor([[3.0, 1], [1, 4]])
    second = torch.tensor([[1.0, 1, 0]])
    masks = keep_masks([first, second], 3 / 7)
    assert [bits(mask) for mask in masks] == [[[1, 0], [0, 1]], [[1, 1, 0]]]


def test_model_picks_from_the_small_scale_layer_alone():
    scores = torch.rand(4, 6) + 0.1
    masks = keep_masks([scores * 100, scores], 0.5)
    assert masks[0].all()
    assert not masks[1].any()


def test_two_of_four_by_hand():
    scores = torch.tensor([[4.0, 3, 2, 1, 1, 1, 1, 1], [0, 5, 0, 0, -2, -1, -3, -4]])
    assert bits(keep_mask(scores, NofM(2, 4))) == [
        [1, 1, 0, 0, 0, 0, 1, 1],
        [0, 1, 0, 1, 1, 1, 0, 0],
    ]


def test_one_of_four_keeps_one_and_three_of_four_keeps_three():
    scores = torch.tensor([[2.0, 9, 4, 4]])
    assert bits(keep_mask(scores, NofM(1, 4))) == [[0, 1, 0, 0]]
    assert bits(keep_mask(scores, NofM(3, 4))) == [[0, 1, 1, 1]]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_n_of_m_equals_a_stable_sort_of_each_group(data):
    m = data.draw(st.integers(2, 9))
    n = data.draw(st.integers(1, m - 1))
    height = data.draw(st.integers(1, 3))
    groups = data.draw(st.integers(1, 3))
    size = height * groups * m
    scores = np.array(data.draw(st.lists(SCORE, min_size=size, max_size=size)), dtype=np.float32)
    expected = kept_by_sorting(scores.reshape(-1, m), m - n).reshape(height, groups * m)
    mask = keep_mask(torch.from_numpy(scores).view(height, groups * m), NofM(n, m))
    assert np.array_equal(mask.numpy(), expected)


@settings(max_examples=50, deadline=None)
@given(matrix(), st.lists(st.floats(0, 0.999), min_size=2, max_size=5))
def test_masks_of_growing_sparsity_are_nested(rows, sparsities):
    masks = [
        keep_mask(torch.from_numpy(rows), Unstructured(s, "layer")) for s in sorted(sparsities)
    ]
    for denser, sparser in itertools.pairwise(masks):
        assert not (sparser & ~denser).any()


@pytest.mark.parametrize(
    ("size", "sparsity", "removed"),
    [
        (100, 0.29, 29),
        (576, 0.6, 345),
        (576, 0.5, 288),
        (1536, 0.7, 1075),
        (10, 0.3, 3),
        (3, 0.34, 1),
        (3, 0.33, 0),
        (0, 0.5, 0),
        (10, 0.0, 0),
        (884736, 0.55, 486604),
        (1000, 0.999, 999),
        (1000, 0.9989, 998),
    ],
)
def test_counts_are_floors_of_the_decimal_product(size, sparsity, removed):
    assert count_removed(size, sparsity) == removed


@pytest.mark.parametrize(
    "text", ["3:2", "2:0", "0:4", "4:4", "1.5", "0.5", "2:", ":4", "2:4:8", "-2:4", "two:4"]
)
def test_impossible_pattern_text_is_refused(text):
    with pytest.raises(UserError, match=r"pattern .* is not allowed"):
        make_pattern(pattern=text)


@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, math.nan, math.inf, True, False, "0.5", [0.5]])
def test_impossible_sparsity_is_refused(sparsity):
    with pytest.raises(UserError, match=r"sparsity .* is not allowed; use a number in \[0, 1\)"):
        make_pattern(sparsity)


def test_make_pattern_reads_both_forms_and_wants_exactly_one():
    assert make_pattern(0.5) == Unstructured(0.5, "row")
    assert make_pattern(0, scope="model") == Unstructured(0, "model")
    assert make_pattern(pattern="2:4") == NofM(2, 4)
    assert make_pattern(pattern=NofM(4, 8)) == NofM(4, 8)
    for arguments in ({}, {"sparsity": 0.5, "pattern": "2:4"}):
        with pytest.raises(UserError, match="give either sparsity or pattern"):
            make_pattern(**arguments)
    with pytest.raises(UserError, match="scope 'column' is unknown"):
        make_pattern(0.5, scope="column")


def test_patterns_tell_their_sparsity_and_name():
    assert (NofM(1, 4).sparsity, str(NofM(1, 4)), str(Unstructured(0.5))) == (
        0.75,
        "1:4",
        "0.5 per row",
    )


def test_width_must_divide():
    with pytest.raises(UserError, match="q_proj has 10 inputs, which pattern 2:4 does not divide"):
        check_width(10, NofM(2, 4), "q_proj")
    with pytest.raises(UserError, match="10 inputs"):
        keep_mask(torch.rand(2, 10), NofM(2, 4))
    check_width(10, Unstructured(0.5))


@pytest.mark.parametrize("pattern", [Unstructured(0.5), Unstructured(0.5, "layer"), NofM(2, 4)])
def test_nan_scores_are_refused(pattern):
    with pytest.raises(UserError, match="NaN"):
        keep_mask(torch.tensor([[1.0, math.nan, 2, 3]]), pattern)


def test_nan_scores_are_refused_over_the_whole_model():
    with pytest.raises(UserError, match="NaN"):
        keep_masks([torch.ones(2, 2), torch.tensor([[1.0, math.nan]])], 0.5)


def test_one_layer_has_no_model_scope():
    with pytest.raises(UserError, match="scope 'model' compares all layers"):
        keep_mask(torch.rand(2, 2), Unstructured(0.5, "model"))


@pytest.mark.parametrize(
    "pattern",
    [
        Unstructured(0.4),
        Unstructured(0.4, "layer"),
        ExactCount(37, 8 * 24),
        ExactCount(37, 8 * 24, "layer"),
        NofM(2, 4),
        NofM(2, 3),
        Unstructured(0),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_mask_of_a_score_is_that_of_its_dense_tensor(pattern, dtype):
    """For each form of score, ties included."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 24, generator=generator).mul(4).round().to(dtype)
    norm = torch.rand(24, generator=generator)
    before = weight.clone()
    for score in (magnitude_score(weight), wanda_score(weight, norm), ria_score(weight, norm)):
        assert torch.equal(keep_mask(score, pattern), keep_mask(score.dense(), pattern))
    assert torch.equal(weight, before)


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.7])
def test_masks_of_scores_over_all_layers_are_those_of_their_dense_tensors(sparsity):
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(4, 6, generator=generator).mul(3).round() for _ in range(3)]
    scores = [magnitude_score(weight) for weight in weights]
    masks = keep_masks(scores, sparsity)
    dense = keep_masks([score.dense() for score in scores], sparsity)
    assert all(map(torch.equal, masks, dense))
    assert sum(int((~mask).sum()) for mask in masks) == int(sparsity * 72)


def test_scores_and_tensors_mix_in_one_ranking():
    weights = [torch.tensor([[1.0, -4]]), torch.tensor([[3.0], [2]])]
    masks = keep_masks([Score(weights[0]), weights[1]], 0.5)
    assert [mask.tolist() for mask in masks] == [[[False, True]], [[True], [False]]]


def test_a_mask_of_one_layer_by_the_scope_of_the_model_is_refused():
    with pytest.raises(UserError, match="scope 'model' compares all layers"):
        keep_mask(Score(torch.ones(2, 4)), Unstructured(0.5, "model"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "pattern", [Unstructured(0.5), Unstructured(0.5, "layer"), NofM(2, 4)], ids=str
)
def test_scores_that_are_not_finite_are_refused(pattern, bad):
    weight = torch.ones(2, 4)
    weight[1, 2] = bad
    with pytest.raises(UserError, match="hold NaN or infinity"):
        keep_mask(Score(weight), pattern)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
@pytest.mark.parametrize(
    "pattern",
    [Unstructured(0.4), Unstructured(0.4, "layer"), ExactCount(7, 48), NofM(2, 4), NofM(2, 3)],
    ids=str,
)
def test_narrow_scores_are_compared_as_they_are(pattern, dtype):
    """float32 holds every narrower number: the mask is that of the widened scores."""
    scores = torch.randn(4, 12, generator=torch.Generator().manual_seed(2)).to(dtype)
    assert torch.equal(keep_mask(scores, pattern), keep_mask(scores.float(), pattern))
    (mask,) = keep_masks([scores], 0.4)
    assert torch.equal(mask, keep_masks([scores.float()], 0.4)[0])


def test_no_layers_have_no_masks():
    assert keep_masks([], 0.5) == []


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (
            torch.ones(2, 4, dtype=torch.int64),
            "scores are torch.int64 [2, 4]; use a matrix [out, in] of a float dtype",
        ),
        (torch.ones(4), "scores are torch.float32 [4]; use a matrix [out, in] of a float dtype"),
        ([[1.0, 2]], "scores are a list; use a Score or a tensor [out, in]"),
        (
            Score(torch.ones(2, 4, dtype=torch.bfloat16), given=True),
            "given scores are torch.bfloat16; use torch.float32",
        ),
    ],
)
def test_what_are_no_scores_is_one_line(score, message):
    for choose in (lambda: keep_mask(score, Unstructured(0.5)), lambda: keep_masks([score], 0.5)):
        with pytest.raises(UserError) as caught:
            choose()
        assert str(caught.value) == message

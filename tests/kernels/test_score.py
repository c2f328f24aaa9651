"""The one score: its values by hand, its forms, what kernels read of it, and what it refuses."""

import re

import pytest
import torch

from prunebook.errors import UserError
from prunebook.kernels.score import Score, comparable, refuse_nan

WEIGHT = torch.tensor([[-1.0, 2, 0], [4, -0.5, 3]])
COLUMNS = torch.tensor([2.0, 1, 10])
COLUMN_SUMS = torch.tensor([5.0, 2.5, 3])
ROW_SUMS = torch.tensor([3.0, 7.5])


def test_scores_by_hand():
    assert Score(WEIGHT).dense().tolist() == [[1, 2, 0], [4, 0.5, 3]]
    assert Score(WEIGHT, COLUMNS).dense().tolist() == [[2, 2, 0], [8, 0.5, 30]]
    shares = [
        [2 * (1 / 5 + 1 / 3), 2 / 2.5 + 2 / 3, 0],
        [2 * (4 / 5 + 4 / 7.5), 0.5 / 2.5 + 0.5 / 7.5, 10 * 1.4],
    ]
    score = Score(WEIGHT, COLUMNS, COLUMN_SUMS, ROW_SUMS)
    assert torch.allclose(score.dense(), torch.tensor(shares), rtol=1e-6)


def test_given_scores_are_the_scores():
    assert Score(WEIGHT, given=True).dense() is WEIGHT


def test_scores_are_float32_of_the_weight_s_shape():
    score = Score(WEIGHT.bfloat16(), COLUMNS)
    assert score.dense().dtype == torch.float32
    assert score.dense().shape == score.shape == (2, 3)


def test_kernels_read_the_weight_where_a_factor_is_missing():
    weight, columns, column_sums, row_sums = Score(WEIGHT.T, ROW_SUMS).pointers()
    assert weight.data_ptr() == WEIGHT.data_ptr()
    assert columns is ROW_SUMS
    assert column_sums is weight
    assert row_sums is weight


def test_factors_of_any_stride_are_read_as_contiguous_ones():
    columns = Score(WEIGHT, torch.arange(6.0)[::2]).pointers()[1]
    assert columns.is_contiguous()
    assert columns.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (Score(torch.ones(6)), "weight [6] cannot be scored; use a matrix [out, in]"),
        (Score(WEIGHT, torch.ones(5)), "columns is torch.float32 [5]; a weight [2, 3] needs"),
        (
            Score(WEIGHT, COLUMNS.double()),
            "columns is torch.float64 [3]; a weight [2, 3] needs torch.float32 [3]",
        ),
        (Score(WEIGHT, COLUMNS, COLUMN_SUMS), "factors are incomplete; shares need"),
        (
            Score(WEIGHT, column_sums=COLUMN_SUMS, row_sums=ROW_SUMS),
            "factors are incomplete; shares need columns, column_sums and row_sums",
        ),
        (
            Score(WEIGHT, COLUMNS, COLUMN_SUMS, COLUMNS),
            "row_sums is torch.float32 [3]; a weight [2, 3] needs torch.float32 [2]",
        ),
    ],
)
def test_factors_that_do_not_fit_are_refused(score, message):
    for refuse in (score.check, score.dense):
        with pytest.raises(UserError, match=re.escape(message)):
            refuse()


def test_narrow_scores_are_widened_to_float32_and_others_stay():
    narrow = WEIGHT.bfloat16()
    assert comparable(narrow).dtype == torch.float32
    assert torch.equal(comparable(narrow), WEIGHT)
    for score in (WEIGHT, WEIGHT.double(), Score(WEIGHT)):
        assert comparable(score) is score


def test_what_cannot_be_compared_is_refused():
    for score, message in [
        (WEIGHT.int(), "scores are torch.int32 [2, 3]; use a matrix [out, in] of a float dtype"),
        (WEIGHT[0], "scores are torch.float32 [3]; use a matrix [out, in] of a float dtype"),
        (None, "scores are a NoneType; use a Score or a tensor [out, in]"),
    ]:
        with pytest.raises(UserError) as caught:
            comparable(score)
        assert str(caught.value) == message
    with pytest.raises(UserError, match=r"^scores hold NaN; weights and calibration"):
        refuse_nan(WEIGHT * torch.nan)
    refuse_nan(WEIGHT[:0])

"""The table of factors says what a score of each form holds."""

import pytest
import torch

from prunebook.kernels import forms
from prunebook.kernels.score import Score

WEIGHT = torch.ones(2, 3)
SCORES = {
    forms.MAGNITUDE: Score(WEIGHT),
    forms.COLUMNS: Score(WEIGHT, torch.ones(3)),
    forms.SHARES: Score(WEIGHT, torch.ones(3), torch.ones(3), torch.ones(2)),
    forms.GIVEN: Score(WEIGHT, given=True),
}


@pytest.mark.parametrize("form", forms.FACTORS)
def test_the_table_counts_the_factors_of_a_score(form):
    score = SCORES[form]
    assert score.form == form
    factors = [score.columns, score.column_sums, score.row_sums]
    sizes = [len(factor) for factor in factors if factor is not None]
    assert forms.FACTORS[form] == (sizes.count(3), sizes.count(2))

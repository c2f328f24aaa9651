"""The magnitude of weights as a score."""

import torch

from prunebook.criteria import SCORES
from prunebook.criteria.magnitude import magnitude_score


def test_by_hand():
    weight = torch.tensor([[1.0, -2], [0, 3]])
    assert magnitude_score(weight).dense().tolist() == [[1, 2], [0, 3]]
    assert magnitude_score(weight.bfloat16()).dense().dtype == torch.float32


def test_the_score_by_name_ignores_the_norms():
    weight = torch.tensor([[1.0, -2], [0, 3]])
    score = SCORES["magnitude"](weight, torch.tensor([5.0, 0]))
    assert torch.equal(score.dense(), weight.abs())

"""What the released code does otherwise: queues that never run out, and an MLP left out."""

import pytest
import torch
from tests.refusals import refused_in_one_line

from prunebook.methods import prune
from prunebook.methods.dsnot.as_released import released_pruning_queues, unrefined_linears


def test_released_queues_go_on_with_the_lowest_score_and_then_the_other_sign():
    released = torch.tensor([[3.0, -1, 0, -2, 5]])
    keep = torch.ones(1, 5, dtype=torch.bool)
    scores = torch.tensor([[4.0, 1, 2, 3, 5]])
    columns = released_pruning_queues(released, keep, scores, 5)
    # D > 0 by score, column 1 (the lowest of all) for the one with D = 0, D < 0 highest first
    assert columns[0].tolist() == [[0, 4, 1, 3, 1]]
    assert columns[1].tolist() == [[1, 3, 1, 4, 0]]


@pytest.mark.parametrize(
    ("words", "unrefined"),
    [(("skip-mlp", "queues"), {"0.mlp.up"}), (("queues", "variance"), set()), ((), set())],
)
def test_the_mlp_is_left_out_where_the_word_says_so(words, unrefined):
    assert unrefined_linears(["0.self_attn.q", "0.mlp.up"], words) == unrefined


def test_a_model_without_linears_of_that_name_is_refused(make_model, tokens):
    message = "needs linears whose names hold 'mlp'; leave it out for a"
    with refused_in_one_line(message):
        unrefined_linears(["0.fc1", "0.fc2"], ("skip-mlp",))
    options = {"sparsity": 0.5, "as_released": ("skip-mlp",), "calibration": tokens}
    with refused_in_one_line(message):
        prune(make_model("opt"), "dsnot", **options)

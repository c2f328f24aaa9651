"""Shortened LLaMA: which blocks go by each score, what stays whatever its score, and bad input."""

import pytest
import torch

from prunebook import prune
from prunebook.criteria.block_scores import magnitude_scores, perplexity_scores, taylor_scores
from prunebook.errors import UserError
from prunebook.methods import ShortenedLLaMA

OF = {
    "perplexity": perplexity_scores,
    "taylor": taylor_scores,
    "magnitude": lambda model, _: magnitude_scores(model),
}


@pytest.mark.parametrize("criterion", list(OF))
@pytest.mark.parametrize("seed", range(3))
def test_the_lowest_scores_go_from_anywhere(make_model, tokens, criterion, seed):
    model = make_model("llama", seed=seed, num_hidden_layers=6)
    blocks = list(model.model.layers)
    scores = OF[criterion](model, tokens)
    report = prune(
        model, "shortened-llama", remove_blocks=3, criterion=criterion, calibration=tokens
    )
    left = sorted(scores.argsort()[3:].tolist())
    assert list(model.model.layers) == [blocks[index] for index in left]
    assert report.sparsity == pytest.approx(0.5)
    assert report.pattern == "3 blocks"


def test_blocks_at_the_ends_can_be_kept(make_model, tokens):
    model = make_model("llama", num_hidden_layers=6)
    for size, block in zip((1, 9, 2, 3, 8, 1), model.model.layers, strict=True):
        for parameter in block.parameters():
            parameter.data.fill_(size)
    blocks = list(model.model.layers)
    named = {"criterion": "magnitude"}
    prune(
        model,
        ShortenedLLaMA(remove_blocks=2, keep_first=2, keep_last=1, **named),
        calibration=tokens,
    )
    assert list(model.model.layers) == [blocks[index] for index in (0, 1, 4, 5)]
    prune(model, ShortenedLLaMA(sparsity=0.5, **named), calibration=tokens)
    assert list(model.model.layers) == [blocks[1], blocks[4]]


def test_ties_go_lowest_index_first(make_model, tokens):
    model = make_model("llama", num_hidden_layers=4)
    for block in model.model.layers:
        for parameter in block.parameters():
            parameter.data.fill_(0.01)
    blocks = list(model.model.layers)
    prune(model, ShortenedLLaMA(remove_blocks=2, criterion="magnitude"), calibration=tokens)
    assert list(model.model.layers) == blocks[2:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either remove_blocks"),
        (
            {"remove_blocks": 2, "criterion": "ppl"},
            "criterion 'ppl' is not allowed for shortened-ll",
        ),
        ({"remove_blocks": 1, "keep_first": -1}, "keep_first -1 is not allowed"),
        ({"remove_blocks": 1, "keep_last": 0.5}, "keep_last"),
        (
            {"remove_blocks": 2, "keep_first": 1, "keep_last": 1},
            "2 of 3 blocks cannot go; the nearest is remove_blocks=1",
        ),
        ({"remove_blocks": 3}, "3 of 3 blocks cannot go; the nearest is remove_blocks=2"),
        ({"remove_blocks": 1, "precision": "half"}, "precision 'half' is not allowed"),
    ],
)
def test_impossible_options_are_refused(make_model, tokens, options, message):
    model = make_model("llama")
    with pytest.raises(UserError, match=message):
        prune(model, "shortened-llama", calibration=tokens, **options)
    assert len(model.model.layers) == 3
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())

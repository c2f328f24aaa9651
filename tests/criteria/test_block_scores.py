"""Scores of whole blocks: against models that lack the block, by autograd, and for blocks that do
nothing."""

import copy
import math

import pytest
import torch

from prunebook.criteria.block_scores import magnitude_scores, perplexity_scores, taylor_scores
from prunebook.errors import UserError
from prunebook.measure.quality import perplexity
from prunebook.models.anatomy import find_blocks
from prunebook.models.surgery import remove_blocks
from prunebook.passes.backward import next_token_loss
from prunebook.passes.capture import starting_at_block

FAMILIES = ("llama", "mistral", "qwen3", "opt", "gpt2")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_perplexity_score_is_that_of_the_model_without_the_block(make_model, tokens, family):
    model = make_model(family)
    before = copy.deepcopy(model.state_dict())
    scores = perplexity_scores(model, tokens)
    assert scores.dtype == torch.float64
    for index in range(3):
        cut = make_model(family)
        remove_blocks(cut, [index])
        assert scores[index].item() == pytest.approx(
            perplexity(cut, tokens, precision="exact"), rel=1e-6
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_blocks_before_a_block_compute_once(make_model, tokens, monkeypatch):
    # two windows a pass, so that the order of states tells
    monkeypatch.setattr("prunebook.measure.baseline.BATCH_TOKENS", 32)
    model = make_model("llama")
    calls = []
    together = perplexity_scores(model, tokens)
    for index, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, index=index: calls.append(index))
    perplexity_scores(model, tokens)
    passes = math.ceil(len(tokens) / 2)
    assert [calls.count(index) for index in range(3)] == [1, 1 + passes, 2 * passes]
    monkeypatch.undo()
    assert together.tolist() == pytest.approx(perplexity_scores(model, tokens).tolist(), rel=1e-6)


def test_the_blocks_are_back_after_a_fault(make_model):
    model = make_model("llama")
    blocks = list(model.model.layers)
    with pytest.raises(RuntimeError), starting_at_block(model, 2, torch.zeros(1, 4, 32)):
        raise RuntimeError
    assert list(model.model.layers) == blocks


def test_a_block_that_adds_nothing_costs_nothing(make_model, tokens):
    model = make_model("llama")
    model.model.layers[1].self_attn.o_proj.weight.data.zero_()
    model.model.layers[1].mlp.down_proj.weight.data.zero_()
    dense = perplexity(model, tokens, precision="exact")
    assert perplexity_scores(model, tokens)[1].item() == pytest.approx(dense, rel=1e-6)
    # w is 0 where the gradient is not, and the other way round
    assert taylor_scores(model, tokens)[1].item() == 0


def test_what_is_not_finite_is_never_the_cheapest(make_model, tokens):
    model = make_model("llama")
    model.model.layers[2].mlp.down_proj.weight.data.fill_(float("nan"))
    scores = perplexity_scores(model, tokens)
    assert scores[:2].tolist() == [math.inf, math.inf]
    assert scores[2] < math.inf


@pytest.mark.parametrize("family", FAMILIES)
def test_magnitude_counts_every_parameter_once(make_model, family):
    model = make_model(family)
    expected = [
        sum(p.abs().sum().item() for p in block.module.parameters()) for block in find_blocks(model)
    ]
    assert magnitude_scores(model).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_taylor_score_is_of_the_gradient_of_the_whole_text(
    make_model, tokens, family, monkeypatch
):
    model = make_model(family)
    next_token_loss(model, tokens).backward()
    expected = [
        sum((p * p.grad).abs().sum().item() for p in block.module.parameters())
        for block in find_blocks(model)
    ]
    model.zero_grad()
    # two windows a pass
    monkeypatch.setattr("prunebook.passes.backward.TOKENS_PER_PASS", {"cpu": 32})
    frozen = next(model.parameters()).requires_grad_(False)
    assert taylor_scores(model, tokens).tolist() == pytest.approx(expected, rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not frozen.requires_grad
    assert all(
        parameter.requires_grad for parameter in model.parameters() if parameter is not frozen
    )


def test_bad_input_is_one_line(make_model, tokens):
    model = make_model("llama")
    with pytest.raises(
        UserError, match=r"windows of at least 2 tokens to predict one, not \[7, 1\]"
    ):
        taylor_scores(model, tokens[:, :1])
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(UserError, match="gradients hold NaN or infinity"):
        taylor_scores(model, tokens)

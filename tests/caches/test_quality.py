"""Quality under a budget: equal to reading token by token, and to the ordinary NLL without
pruning."""

import math

import pytest
import torch
import torch.nn.functional as F

import prunebook as pb
from prunebook.caches import H2OCache, WindowCache, measure, perplexity, recall
from prunebook.errors import UserError


@pytest.mark.parametrize(("rows", "logits_at_once"), [(8, 1024), (8, 14), (3, 6)])
def test_nll_is_that_of_token_by_token(make_model, tokens, monkeypatch, rows, logits_at_once):
    monkeypatch.setattr("prunebook.caches.quality.WINDOWS_PER_PASS", rows)
    monkeypatch.setattr("prunebook.caches.quality.LOGITS_PER_PASS", logits_at_once)
    model = make_model("llama")
    cache = H2OCache(4)
    losses = []
    found = measure(model, tokens, lambda: H2OCache(4), prompt=6)
    with torch.no_grad():
        logits = model(tokens[:, :6], past_key_values=cache).logits
        for t in range(6, 16):
            losses.append(F.cross_entropy(logits[:, -1], tokens[:, t], reduction="none"))
            logits = model(tokens[:, t : t + 1], past_key_values=cache).logits
    torch.testing.assert_close(found.nll, torch.stack(losses, 1).mean(1), atol=1e-5, rtol=1e-5)
    assert found.tokens == 70
    assert perplexity(model, tokens, lambda: H2OCache(4), prompt=6) == pytest.approx(
        found.perplexity, rel=1e-6
    )


def test_without_pruning_it_is_the_ordinary_nll(make_model, tokens):
    model = make_model("llama")
    with torch.no_grad():
        expected = F.cross_entropy(
            model(tokens).logits[:, 5:-1].mT, tokens[:, 6:], reduction="none"
        ).mean(1)
    for options in ((), (lambda: H2OCache(1.0),)):
        torch.testing.assert_close(
            measure(model, tokens, *options, prompt=6).nll, expected, atol=1e-5, rtol=1e-5
        )
    pruned = measure(model, tokens, lambda: WindowCache(2), prompt=6).nll
    assert (pruned - expected).abs().min() > 1e-3
    everything = measure(model, tokens, prompt=1)
    assert everything.perplexity == pytest.approx(pb.perplexity(model, tokens, "exact"), rel=1e-5)


def test_recall(make_model, tokens):
    model = make_model("llama")
    text = tokens[0]
    passage = tokens[1, :9]
    found = recall(model, text, passage, depth=0.25, cue=3)
    whole = torch.cat([text[:4], passage, text[4:], passage])[None]
    with torch.no_grad():
        logits = model(whole).logits[0, -7:-1]
    assert found.log_probability == pytest.approx(
        -F.cross_entropy(logits, passage[3:]).item(), abs=1e-5
    )
    assert not found.reproduced
    pruned = recall(model, text, passage, lambda: WindowCache(4), depth=0.25, cue=3)
    assert abs(pruned.log_probability - found.log_probability) > 1e-3


def test_recall_of_what_is_most_probable(make_model, tokens):
    model = make_model("llama")
    model.lm_head.weight.data.zero_()  # all words alike: the first is the greedy choice
    found = recall(model, tokens[0], torch.zeros(6, dtype=torch.int64), cue=2)
    assert found.reproduced
    assert found.log_probability == pytest.approx(-math.log(100), abs=1e-5)


@pytest.mark.parametrize("prompt", [0, 16, -1])
def test_bad_prompts(make_model, tokens, prompt):
    with pytest.raises(
        UserError, match=f"prompt {prompt} is not allowed; use 1 to 15 tokens of each window"
    ):
        measure(make_model("llama"), tokens, prompt=prompt)


def test_bad_needles(make_model, tokens):
    model = make_model("llama")
    with pytest.raises(
        UserError, match=r"depth 1.5 is not allowed; use a fraction of the text in \[0, 1\]"
    ):
        recall(model, tokens[0], tokens[1], depth=1.5)
    with pytest.raises(
        UserError, match=r"depth '0' is not allowed; use a fraction of the text in \[0, 1\]"
    ):
        recall(model, tokens[0], tokens[1], depth="0")
    with pytest.raises(UserError, match=r"passage \[7, 16\] is not allowed; use tokens \[length\]"):
        recall(model, tokens[0], tokens)
    with pytest.raises(UserError, match="cue 16 is not allowed; use 1 to 15 tokens of the passage"):
        recall(model, tokens[0], tokens[1], cue=16)

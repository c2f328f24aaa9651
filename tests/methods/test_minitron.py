"""Minitron: what stays on each axis, the sizes of the result, how it is saved, and bad input."""

import copy
import re

import pytest
import torch
import transformers

from prunebook import prune
from prunebook.criteria.activations import activation_importance
from prunebook.criteria.whole_blocks import perplexity_scores
from prunebook.errors import UserError
from prunebook.methods import Minitron
from prunebook.models import save_model
from prunebook.structures import block_parameters
from prunebook.sublayers import find_stack, sublayers


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens).logits


def parts_of(model):
    return [sublayers(block) for block in find_stack(model)[1]]


def highest(scores, left):
    return sorted(scores.argsort()[len(scores) - left :].tolist())


@pytest.mark.parametrize("family", ["llama", "qwen3", "opt"])
def test_the_neurons_of_highest_score_stay(make_model, tokens, family):
    model = make_model(family)
    before, scores = copy.deepcopy(model), activation_importance(model, tokens).neurons
    prune(model, "minitron", neurons=20, calibration=tokens)
    for old, new, of_block in zip(parts_of(before), parts_of(model), scores, strict=True):
        left = highest(of_block, 20)
        assert all(torch.equal(a.weight, b.weight[left]) for a, b in zip(new.first, old.first, strict=True))
        assert torch.equal(new.last.weight, old.last.weight[:, left])
        assert torch.equal(new.query.weight, old.query.weight)


@pytest.mark.parametrize("head_norm", ["token", "channel"])
def test_every_key_value_head_keeps_its_best_query_heads(make_model, tokens, head_norm):
    model = make_model("llama", num_attention_heads=8, head_dim=4)
    before = copy.deepcopy(model)
    scores = activation_importance(model, tokens, head_norm=head_norm).heads
    prune(model, "minitron", heads=4, head_norm=head_norm, calibration=tokens)
    for old, new, of_block in zip(parts_of(before), parts_of(model), scores, strict=True):
        best = highest(of_block[:4], 2) + [4 + head for head in highest(of_block[4:], 2)]
        channels = [head * 4 + i for head in best for i in range(4)]
        assert torch.equal(new.query.weight, old.query.weight[channels])
        assert torch.equal(new.out.weight, old.out.weight[:, channels])
        assert torch.equal(new.key.weight, old.key.weight)
        assert (new.heads, new.kv_heads) == (4, 2)


def test_channels_of_highest_score_stay(make_model, tokens):
    model = make_model("llama")
    before, scores = copy.deepcopy(model), activation_importance(model, tokens).hidden
    prune(model, "minitron", hidden=24, calibration=tokens)
    left = highest(scores, 24)
    embedding = before.get_input_embeddings().weight[:, left]
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert torch.equal(model.model.norm.weight, before.model.norm.weight[left])
    assert model.config.hidden_size == 24


@pytest.mark.parametrize("depth", ["influence", "perplexity"])
def test_blocks_of_highest_score_stay(make_model, tokens, depth):
    model = make_model("llama", num_hidden_layers=5)
    influence, of_loss = activation_importance(model, tokens).influence, perplexity_scores(model, tokens)
    scores = influence if depth == "influence" else of_loss
    assert highest(influence, 3) != highest(of_loss, 3)
    expected = [model.model.layers[index] for index in highest(scores, 3)]
    prune(model, "minitron", blocks=3, depth=depth, calibration=tokens)
    assert all(a is b for a, b in zip(model.model.layers, expected, strict=True))


def test_of_equal_scores_the_lowest_index_goes(make_model, tokens):
    model = make_model("llama")
    for parts in parts_of(model):
        parts.first[0].weight.data.zero_()  # all activations are 0
    before = copy.deepcopy(model)
    prune(model, "minitron", neurons=20, calibration=tokens)
    for old, new in zip(parts_of(before), parts_of(model), strict=True):
        assert torch.equal(new.last.weight, old.last.weight[:, 28:])


def test_what_adds_nothing_goes_without_a_trace(make_model, tokens):
    model = make_model("llama", tie_word_embeddings=False)
    with torch.no_grad():
        for parts in parts_of(model):
            parts.first[0].weight[[3, 40]] = 0  # their activation is 0
            parts.value.weight[:8] = 0  # of the first key-value head
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            model.get_submodule(f"model.layers.1.{name}").weight.zero_()  # a block that adds nothing
    wanted = logits(model, tokens)
    prune(model, "minitron", neurons=46, blocks=2, calibration=tokens)
    torch.testing.assert_close(logits(model, tokens), wanted, rtol=1e-4, atol=1e-4)


def test_silent_channels_go_without_a_trace_but_for_the_norm(make_model, tokens):
    """Channels that nobody writes are 0 in the stream; the mean square alone feels them, so it is scaled here."""
    model = make_model("llama", tie_word_embeddings=False, rms_norm_eps=1e-12)
    silent = [1, 6, 7, 19, 20, 25, 30, 31]
    with torch.no_grad():
        model.get_input_embeddings().weight[:, silent] = 0
        for parts in parts_of(model):
            parts.out.weight[silent] = parts.last.weight[silent] = 0
    wanted = logits(model, tokens)
    prune(model, "minitron", hidden=24, calibration=tokens)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data *= (32 / 24) ** 0.5
    torch.testing.assert_close(logits(model, tokens), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_all_axes_at_once_make_an_ordinary_smaller_model(make_model, word_tokenizer, tokens, tmp_path, family):
    model = make_model(family, num_attention_heads=8, head_dim=4, num_hidden_layers=4)
    before = block_parameters(model)
    report = prune(model, "minitron", neurons=20, heads=4, hidden=24, blocks=3, calibration=tokens)
    inside = 24 * 4 * (2 * 4 + 2 * 2) + 3 * 24 * 20 + 2 * 24 + (2 * 4 if family == "qwen3" else 0)
    assert block_parameters(model) == 3 * inside
    assert report.sparsity == 1 - 3 * inside / before
    assert (report.reloads_with, report.pattern) == ("transformers", "20 neurons, 4 heads, 24 hidden, 3 blocks")
    save_model(model, word_tokenizer, tmp_path / "small")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(logits(again, tokens), logits(model, tokens))
    prompt = tokens[:1, :5]
    written = [again.generate(prompt, max_new_tokens=8, do_sample=False, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*written)


@pytest.mark.parametrize("sparsity", [0.1, 0.25, 0.4])
def test_sparsity_is_met_to_the_nearest_neuron(make_model, tokens, sparsity):
    model = make_model("llama")
    report = prune(model, "minitron", sparsity=sparsity, calibration=tokens)
    neuron = 3 * 32 * 3 / block_parameters(make_model("llama"))  # in all three blocks
    assert abs(report.sparsity - sparsity) <= neuron / 2 + 1e-12
    assert report.reloads_with == "transformers"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give sizes that stay, as neurons=1024 or blocks=22, or else sparsity, as 0.2"),
        ({"sparsity": 0.2, "blocks": 2}, "give sizes that stay"),
        ({"neurons": 0}, "neurons 0 is not allowed; use a whole number >= 1"),
        ({"heads": 2.0}, "heads 2.0 is not allowed; use a whole number >= 1"),
        ({"sparsity": 1.0}, "sparsity 1.0 is not allowed; use a number in (0, 1), as 0.2"),
        ({"blocks": 2, "batch": "max"}, "batch 'max' is not allowed for minitron; use 'mean' or 'l2' or 'var'"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Minitron(**options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", {"neurons": 49}, "neurons 49 of 48 cannot stay; use 1 to 48"),
        ("llama", {"blocks": 4}, "blocks 4 of 3 cannot stay; use 1 to 3"),
        ("llama", {"heads": 3}, "heads 3 do not divide among 2 key-value heads; nearest: 4"),
        ("llama", {"hidden": 30}, "30 hidden channels do not divide among 4 heads"),
        ("llama", {"sparsity": 0.9}, "sparsity 0.9 cannot be met by heads and neurons of 3 blocks"),
        ("opt", {"hidden": 16}, "OPTForCausalLM cannot lose hidden channels: its configuration has no head_dim"),
        ("gpt2", {"neurons": 10}, "GPT2Block has no heads and neurons that can be told apart"),
    ],
)
def test_what_a_model_does_not_allow_leaves_it_as_it_was(make_model, tokens, family, options, message):
    model = make_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(message)):
        prune(model, "minitron", calibration=tokens, **options)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_bad_tokens_are_refused(make_model):
    with pytest.raises(UserError, match="outside the vocabulary"):
        prune(make_model("llama"), "minitron", blocks=2, calibration=torch.full((2, 8), 100))

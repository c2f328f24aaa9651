"""Minitron: what stays on each axis, the sizes of the result, how it is saved, and bad input."""

import contextlib
import copy
import re

import pytest
import torch
import transformers
from tests.refusals import refused_in_one_line
from tests.whole_models import greedy, logits

from prunebook import prune
from prunebook.errors import UserError
from prunebook.methods import Minitron
from prunebook.methods.minitron import method
from prunebook.methods.minitron.activations import activation_importance
from prunebook.models.anatomy import all_sublayers, find_stack, sublayers
from prunebook.models.loading import load_model, save_model
from prunebook.models.sizes import block_parameters
from prunebook.models.surgery import remove_blocks, remove_heads, sync_config


def highest(scores, left):
    return sorted(scores.argsort()[len(scores) - left :].tolist())


OTHERS = (
    {"sample_aggregation": "mean"},
    {"sample_aggregation": "var"},
    {"token_aggregation": "l2"},
    {"token_aggregation": "var"},
    {"precision": "fast"},
)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in ("llama", "qwen3", "opt")),
        *(("llama", options) for options in OTHERS),
    ],
)
def test_the_neurons_of_highest_score_stay(make_model, tokens, family, options):
    model = make_model(family, **{"ffn_dim" if family == "opt" else "intermediate_size": 400})
    before = copy.deepcopy(model)
    scores = activation_importance(model, tokens, **options).neurons
    chosen = [highest(of_block, 150) for of_block in scores]
    if options:
        assert chosen != [
            highest(of_block, 150) for of_block in activation_importance(model, tokens).neurons
        ]
    prune(model, "minitron", keep_neurons=150, calibration=tokens, **options)
    for old, new, left in zip(all_sublayers(before), all_sublayers(model), chosen, strict=True):
        assert all(
            torch.equal(a.weight, b.weight[left]) for a, b in zip(new.first, old.first, strict=True)
        )
        assert torch.equal(new.last.weight, old.last.weight[:, left])
        assert torch.equal(new.query.weight, old.query.weight)


@pytest.mark.parametrize("head_norm", ["token", "channel"])
def test_every_key_value_head_keeps_its_best_query_heads(make_model, tokens, head_norm):
    model = make_model("llama", num_attention_heads=8, head_dim=4)
    before = copy.deepcopy(model)
    scores, others = (
        activation_importance(model, tokens, head_norm=norm).heads
        for norm in (head_norm, "channel" if head_norm == "token" else "token")
    )
    assert any(highest(a[:4], 2) != highest(b[:4], 2) for a, b in zip(scores, others, strict=True))
    prune(model, "minitron", keep_heads=4, head_norm=head_norm, calibration=tokens)
    for old, new, of_block in zip(all_sublayers(before), all_sublayers(model), scores, strict=True):
        best = highest(of_block[:4], 2) + [4 + head for head in highest(of_block[4:], 2)]
        channels = [head * 4 + i for head in best for i in range(4)]
        assert torch.equal(new.query.weight, old.query.weight[channels])
        assert torch.equal(new.out.weight, old.out.weight[:, channels])
        assert torch.equal(new.key.weight, old.key.weight)
        assert (new.heads, new.kv_heads) == (4, 2)


def test_channels_of_highest_score_stay(make_model, tokens):
    model = make_model("llama")
    before = copy.deepcopy(model)
    scores = activation_importance(model, tokens).hidden
    prune(model, "minitron", keep_hidden=24, calibration=tokens)
    left = highest(scores, 24)
    embedding = before.get_input_embeddings().weight[:, left]
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert torch.equal(model.model.norm.weight, before.model.norm.weight[left])
    assert model.config.hidden_size == 24


def losses_without(model, tokens):
    """The mean loss of the model without each block in turn."""
    losses = []
    for index in range(model.config.num_hidden_layers):
        small = copy.deepcopy(model)
        remove_blocks(small, [index])
        guesses = logits(small, tokens)[:, :-1].flatten(0, 1)
        losses.append(torch.nn.functional.cross_entropy(guesses, tokens[:, 1:].flatten()).item())
    return losses


def test_the_passes_without_a_block_have_the_precision_asked(make_model, tokens, monkeypatch):
    asked = []

    def scores(model, _, precision, __):
        asked.append(precision)
        return torch.arange(3.0)

    monkeypatch.setattr(method, "perplexity_scores", scores)
    prune(
        make_model("llama"),
        "minitron",
        keep_blocks=2,
        depth_criterion="perplexity",
        precision="fast",
        calibration=tokens,
    )
    assert asked == ["fast"]


@pytest.mark.parametrize("depth", ["influence", "perplexity"])
def test_blocks_of_highest_score_stay(make_model, tokens, depth):
    model = make_model("llama", num_hidden_layers=5)
    influence = activation_importance(model, tokens).influence
    of_loss = torch.tensor(losses_without(model, tokens))
    scores = influence if depth == "influence" else of_loss
    assert highest(influence, 3) != highest(of_loss, 3)
    expected = [model.model.layers[index] for index in highest(scores, 3)]
    prune(model, "minitron", keep_blocks=3, depth_criterion=depth, calibration=tokens)
    assert all(a is b for a, b in zip(model.model.layers, expected, strict=True))


def test_of_equal_scores_the_lowest_index_goes(make_model, tokens):
    model = make_model("llama")
    for parts in all_sublayers(model):
        parts.first[0].weight.data.zero_()  # all activations are 0
    before = copy.deepcopy(model)
    prune(model, "minitron", keep_neurons=20, calibration=tokens)
    for old, new in zip(all_sublayers(before), all_sublayers(model), strict=True):
        assert torch.equal(new.last.weight, old.last.weight[:, 28:])


@torch.no_grad()
def test_units_that_nobody_reads_go_without_a_trace(make_model, tokens):
    """What is read of a unit does not count for its score: those to go are found first, a sublayer
    at a time."""
    model = make_model("llama", num_attention_heads=6, hidden_size=36)
    gone = []
    for index, parts in enumerate(all_sublayers(model)):
        of_heads = activation_importance(model, tokens).heads[index].view(2, 3)
        heads = [3 * group + of_heads[group].argmin().item() for group in range(2)]
        parts.out.weight[:, [head * 8 + i for head in heads for i in range(8)]] = 0
        neurons = activation_importance(model, tokens).neurons[index].argsort()[:10].tolist()
        parts.last.weight[:, neurons] = 0
        gone.append((heads, neurons))
    wanted = logits(model, tokens)
    prune(model, "minitron", keep_neurons=38, keep_heads=4, calibration=tokens)
    assert any(heads != [0, 3] for heads, _ in gone)
    assert [(parts.neurons, parts.heads, parts.kv_heads) for parts in all_sublayers(model)] == [
        (38, 4, 2)
    ] * 3
    torch.testing.assert_close(logits(model, tokens), wanted, rtol=1e-4, atol=1e-4)


def test_what_adds_nothing_goes_without_a_trace(make_model, tokens):
    model = make_model("llama", tie_word_embeddings=False)
    with torch.no_grad():
        for parts in all_sublayers(model):
            parts.first[0].weight[[3, 40]] = 0  # their activation is 0
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            # a block that adds nothing
            model.get_submodule(f"model.layers.1.{name}").weight.zero_()
    wanted = logits(model, tokens)
    prune(model, "minitron", keep_neurons=46, keep_blocks=2, calibration=tokens)
    torch.testing.assert_close(logits(model, tokens), wanted, rtol=1e-4, atol=1e-4)


def test_silent_channels_go_without_a_trace_but_for_the_norm(make_model, tokens):
    """Channels that nobody writes are 0 in the stream; the mean square alone feels them, so it is
    scaled here."""
    model = make_model("llama", tie_word_embeddings=False, rms_norm_eps=1e-12)
    silent = [1, 6, 7, 19, 20, 25, 30, 31]
    with torch.no_grad():
        model.get_input_embeddings().weight[:, silent] = 0
        for parts in all_sublayers(model):
            parts.out.weight[silent] = parts.last.weight[silent] = 0
    wanted = logits(model, tokens)
    prune(model, "minitron", keep_hidden=24, calibration=tokens)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data *= (32 / 24) ** 0.5
    torch.testing.assert_close(logits(model, tokens), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_all_axes_at_once_make_an_ordinary_smaller_model(
    make_model, word_tokenizer, tokens, tmp_path, family
):
    model = make_model(family, num_attention_heads=8, head_dim=4, num_hidden_layers=4)
    before = block_parameters(model)
    report = prune(
        model,
        "minitron",
        keep_neurons=20,
        keep_heads=4,
        keep_hidden=24,
        keep_blocks=3,
        calibration=tokens,
    )
    inside = 24 * 4 * (2 * 4 + 2 * 2) + 3 * 24 * 20 + 2 * 24 + (2 * 4 if family == "qwen3" else 0)
    assert block_parameters(model) == 3 * inside
    assert report.sparsity == 1 - 3 * inside / before
    assert (report.reloads_with, report.pattern) == (
        "transformers",
        "20 neurons, 4 heads, 24 hidden, 3 blocks",
    )
    save_model(model, word_tokenizer, tmp_path / "small")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(logits(again, tokens), logits(model, tokens))
    prompt = tokens[:2, :5]
    written = [
        greedy(one, prompt, use_cache=cache) for one in (model, again) for cache in (True, False)
    ]
    assert all(torch.equal(written[0], other) for other in written[1:])


def test_the_width_goes_by_the_heads_that_stay(make_model, word_tokenizer, tokens, tmp_path):
    """Llama's configuration asks for a width that is a multiple of the heads: 30 of 6, though not
    of the former 8."""
    model = make_model("llama", num_attention_heads=8, head_dim=4)
    assert (
        prune(model, "minitron", keep_heads=6, keep_hidden=30, calibration=tokens).reloads_with
        == "transformers"
    )
    save_model(model, word_tokenizer, tmp_path / "small")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(logits(again, tokens), logits(model, tokens))


def test_blocks_that_differ_lose_only_what_all_share(make_model, word_tokenizer, tokens, tmp_path):
    model = make_model("llama", num_hidden_layers=4)
    prune(model, "llm-pruner", ratio=0.5, keep_first=1, keep_last=0, calibration=tokens)
    for options in ({"keep_neurons": 20}, {"keep_heads": 2}, {"sparsity": 0.1}):
        with pytest.raises(UserError, match="the blocks differ in heads or neurons"):
            prune(model, "minitron", calibration=tokens, **options)
    report = prune(model, "minitron", keep_hidden=24, keep_blocks=3, calibration=tokens)
    assert report.reloads_with == "prunebook"
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "small"), device="cpu")
    assert torch.equal(logits(again, tokens), logits(model, tokens))


@pytest.mark.parametrize(
    "options",
    [
        {"keep_neurons": 20},
        {"keep_heads": 2},
        {"keep_hidden": 24},
        {"keep_blocks": 1},
        {"sparsity": 0.2},
    ],
)
def test_one_axis_alone_makes_an_ordinary_model(
    make_model, word_tokenizer, tokens, tmp_path, options
):
    model = make_model("llama")
    assert prune(model, "minitron", calibration=tokens, **options).reloads_with == "transformers"
    save_model(model, word_tokenizer, tmp_path / "small")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(logits(again, tokens), logits(model, tokens))


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
        (
            {},
            "give sizes that stay, e.g. keep_neurons=1024 or keep_blocks=22, or else sparsity, "
            "e.g. 0.2",
        ),
        ({"sparsity": 0.2, "keep_blocks": 2}, "give sizes that stay"),
        ({"keep_neurons": 0}, "keep_neurons 0 is not allowed; use a whole number >= 1"),
        ({"keep_heads": 2.0}, "keep_heads 2.0 is not allowed; use a whole number >= 1"),
        ({"sparsity": 1.0}, "sparsity 1.0 is not allowed; use a number in (0, 1), e.g. 0.2"),
        (
            {"keep_blocks": 2, "sample_aggregation": "max"},
            "sample_aggregation 'max' is not allowed for minitron; use 'mean' or 'l2' or 'var'",
        ),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Minitron(**options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", {"keep_neurons": 49}, "neurons 49 of 48 cannot stay; use 1 to 48"),
        ("llama", {"keep_blocks": 4}, "blocks 4 of 3 cannot stay; use 1 to 3"),
        ("llama", {"keep_heads": 3}, "heads 3 do not divide among 2 key-value heads; nearest: 4"),
        ("llama", {"keep_hidden": 30}, "30 hidden channels do not divide among 4 heads"),
        ("llama", {"keep_hidden": 36}, "hidden 36 of 32 cannot stay; use 1 to 32"),
        ("llama", {"keep_heads": 8}, "heads 8 of 4 cannot stay; use 1 to 4"),
        ("llama", {"sparsity": 0.9}, "sparsity 0.9 cannot be met by neurons of 3 blocks"),
        (
            "opt",
            {"keep_hidden": 16},
            "OPTForCausalLM cannot lose hidden channels: its configuration has no head_dim",
        ),
        ("gpt2", {"keep_neurons": 10}, "GPT2Block has no heads and neurons that can be told apart"),
    ],
)
def test_what_a_model_does_not_allow_leaves_it_as_it_was(
    make_model, tokens, family, options, message
):
    model = make_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with refused_in_one_line(re.escape(message)):
        prune(model, "minitron", calibration=tokens, **options)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_heads_that_would_not_divide_the_width_are_refused(make_model, tokens):
    with pytest.raises(UserError, match="32 hidden channels do not divide among 6 heads"):
        prune(
            make_model("llama", num_attention_heads=8, head_dim=4),
            "minitron",
            keep_heads=6,
            calibration=tokens,
        )


def test_bad_tokens_are_refused(make_model):
    with pytest.raises(UserError, match="outside the vocabulary"):
        prune(make_model("llama"), "minitron", keep_blocks=2, calibration=torch.full((2, 8), 100))
    model = make_model("llama")
    with pytest.raises(UserError, match="at least 2 tokens to predict one"):
        prune(
            model,
            "minitron",
            keep_neurons=20,
            keep_blocks=2,
            depth_criterion="perplexity",
            calibration=torch.zeros(2, 1).long(),
        )
    assert [parts.neurons for parts in all_sublayers(model)] == [48] * 3


def test_blocks_go_where_an_attention_is_empty(make_classifier, tokens):
    model = make_classifier()
    remove_heads(sublayers(find_stack(model)[1][0]))
    sync_config(model)
    prune(model, "minitron", keep_blocks=2, calibration=tokens)
    assert len(find_stack(model)[1]) == 2


def test_passes_of_the_whole_model_are_where_the_caller_says(make_model, tokens, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "prunebook.methods.minitron.method.on_device",
        lambda _, device: asked.append(device) or contextlib.nullcontext(),
    )
    prune(
        make_model("llama"),
        "minitron",
        keep_blocks=2,
        depth_criterion="perplexity",
        calibration=tokens,
        device="cpu",
    )
    assert asked == [torch.device("cpu")]

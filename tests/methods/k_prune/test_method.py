"""K-prune: what is left of a model, how it is saved, and bad input."""

import copy
import re

import pytest
import torch
import transformers
from tests.refusals import refused_in_one_line
from tests.whole_models import greedy, logits

from prunebook import prune
from prunebook.errors import UserError
from prunebook.measure.footprint import footprint
from prunebook.methods.k_prune.refit import refit
from prunebook.models.anatomy import all_sublayers, find_stack, sublayers
from prunebook.models.loading import load_model, save_model
from prunebook.models.surgery import remove_heads, remove_neurons


def unit_flops(model, length):
    return sum(
        count * flops
        for parts in all_sublayers(model)
        for count, flops in zip(
            (parts.kv_heads, parts.neurons), parts.group_flops(length), strict=True
        )
    )


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.7])
def test_the_budget_is_met_and_no_more_than_one_unit_a_sublayer_is_wasted(
    make_model, make_classifier, kind, sparsity
):
    model = make_classifier() if kind == "bert" else make_model(kind)
    before = unit_flops(model, 16)
    costs = footprint(model, 16, speed=False).flops
    report = prune(model, "k-prune", sparsity=sparsity, calibration=text())
    left = unit_flops(model, 16)
    assert left <= (1 - sparsity) * before
    most = max(
        all_sublayers(make_classifier() if kind == "bert" else make_model(kind))[0].group_flops(16)
    )
    assert left > (1 - sparsity) * before - most * 2
    # the formula is what is measured
    assert costs - footprint(model, 16, speed=False).flops == before - left
    assert report.pattern == f"heads and neurons, {sparsity} of their FLOPs"
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def text(windows=8):
    return torch.randint(100, (windows, 16), generator=torch.Generator().manual_seed(5))


def test_activations_that_overflow_are_named(make_classifier, tokens):
    a = torch.full((5, 3), torch.inf)
    with pytest.raises(
        UserError,
        match="activations of a sublayer to refit hold NaN or infinity; use a wider dtype",
    ):
        refit(torch.nn.Linear(3, 2), [(a, a[:, :2])], 1e-6)
    model = make_classifier()
    find_stack(model)[1][1].intermediate.dense.bias.data[3] = 1e38
    with pytest.raises(
        UserError, match="calibration activations or gradients hold NaN or infinity"
    ):
        prune(model, "k-prune", sparsity=0.5, calibration=text())


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_tuning_brings_the_states_closer(make_model, make_classifier, kind):
    distances = {}
    for tune in (True, False):
        model = make_classifier() if kind == "bert" else make_model(kind)
        whole = copy.deepcopy(model)
        prune(model, "k-prune", sparsity=0.4, tune=tune, refresh=False, calibration=text(40))
        states = [
            each(input_ids=text(40), output_hidden_states=True).hidden_states[-1]
            for each in (model, whole)
        ]
        distances[tune] = (states[0] - states[1]).norm().item()
    assert distances[True] < 0.9 * distances[False]


def test_predictions_and_states_decide_by_their_weights(make_classifier):
    left = []
    for options in (
        {},
        {"representational": 1e-12},
        {"predictive": 0.0},
        {"head_weight": 1e6},
        {"refresh": False},
    ):
        model = make_classifier()
        prune(model, "k-prune", sparsity=0.5, calibration=text(), **options)
        left.append([(parts.heads, parts.neurons) for parts in all_sublayers(model)])
    assert left[0] != left[1]
    assert left[0] != left[2] or left[1] != left[2]
    # heads are dear now
    assert sum(heads for heads, _ in left[3]) > sum(heads for heads, _ in left[0])


def test_emptied_sublayers_run_save_and_reload(make_classifier, word_tokenizer, tokens, tmp_path):
    model = make_classifier()
    report = prune(model, "k-prune", sparsity=0.97, calibration=text())
    counts = [(parts.heads, parts.neurons) for parts in all_sublayers(model)]
    assert any(heads == 0 for heads, _ in counts)
    assert report.reloads_with == "prunebook"
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    assert type(again).__name__ == "BertForSequenceClassification"
    assert torch.equal(logits(again, tokens), logits(model, tokens))
    assert footprint(again, 16, speed=False) == footprint(model, 16, speed=False)
    prune(again, "k-prune", sparsity=0.2, calibration=text())  # once more, on what is left


def test_a_model_whose_top_is_empty_is_pruned_once_more(make_classifier, make_model):
    model = make_classifier()
    for block in find_stack(model)[1][1:]:
        remove_neurons(sublayers(block))
        remove_heads(sublayers(block))
    before = unit_flops(model, 16)
    prune(model, "k-prune", sparsity=0.3, calibration=text())
    assert 0 < unit_flops(model, 16) <= 0.7 * before
    decoder = make_model("llama")
    remove_neurons(sublayers(find_stack(decoder)[1][-1]))
    before = unit_flops(decoder, 16)
    prune(decoder, "k-prune", sparsity=0.2, calibration=text())
    assert 0 < unit_flops(decoder, 16) <= 0.8 * before


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "ria", "dsnot"])
def test_what_is_left_of_an_emptied_model_can_be_made_sparse(make_model, method):
    model = make_model("llama")
    for block in find_stack(model)[1][:2]:
        remove_neurons(sublayers(block))
    report = prune(model, method, sparsity=0.5, calibration=text())
    assert report.sparsity == pytest.approx(0.5, abs=0.01)
    assert {name for name in report.layers if "down_proj" in name} == {
        "model.layers.2.mlp.down_proj"
    }


def test_dropout_does_not_change_the_choice(make_classifier):
    chosen = []
    for training in (False, True):
        model = make_classifier().train(training)
        prune(model, "k-prune", sparsity=0.5, calibration=text())
        assert model.training is training
        chosen.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    assert chosen[0] == chosen[1]
    model.bert.encoder.layer[0].eval()
    prune(model, "magnitude", sparsity=0.5)
    assert model.training
    assert not any(module.training for module in model.bert.encoder.layer[0].modules())


@pytest.mark.parametrize("kind", ["Gemma2", "Gemma3", "Granite", "Granite nearly"])
def test_blocks_that_change_what_sublayers_add_are_refused_before_anything_is_cut(kind):
    shape = {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "head_dim": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": None,
    }
    nearly = kind == "Granite nearly"
    kind = kind.split()[0]
    config = getattr(transformers, f"{kind}{'Text' * (kind == 'Gemma3')}Config")
    if kind == "Granite":  # nearly: what is added is small beside what is there
        shape |= (
            {"residual_multiplier": 0.9, "embedding_multiplier": 12}
            if nearly
            else {"residual_multiplier": 0.3}
        )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config(**shape)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        UserError, match=f"{kind}DecoderLayer norms or scales what its sublayers add, so that their"
    ):
        prune(model, "k-prune", sparsity=0.3, calibration=text())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    prune(model, "k-prune", sparsity=0.3, tune=False, calibration=text())


def test_decoders_keep_a_head_everywhere_and_generate_with_their_cache(
    make_model, word_tokenizer, tmp_path
):
    model = make_model("llama")
    prune(model, "k-prune", sparsity=0.7, calibration=text())
    assert all(
        parts.kv_heads >= 1 and parts.heads == 2 * parts.kv_heads for parts in all_sublayers(model)
    )
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    pairs = [(one, cache) for one in (model, again) for cache in (True, False)]
    written = [greedy(one, text()[:2, :5], use_cache=cache) for one, cache in pairs]
    assert all(torch.equal(written[0], other) for other in written[1:])


@pytest.mark.parametrize(
    ("kind", "options", "windows", "message"),
    [
        (
            "bert",
            {"sparsity": 0.9999},
            8,
            "FLOPs are less than one unit has; the nearest possible is 2048",
        ),
        (
            "llama",
            {"sparsity": 0.95},
            8,
            "FLOPs are less than what must stay; the nearest possible is",
        ),
        (
            "llama",
            {"sparsity": 0.5},
            2,
            "calibration of 32 tokens cannot refit 48 inputs; give at least as many",
        ),
        ("gpt2", {"sparsity": 0.5}, 8, "GPT2Block has no heads and neurons that can be told apart"),
        ("body", {"sparsity": 0.5}, 8, "BertModel predicts nothing whose change could be measured"),
    ],
)
def test_what_a_model_does_not_allow_leaves_it_as_it_was(
    make_model, make_classifier, kind, options, windows, message
):
    model = {"bert": make_classifier, "body": lambda: make_classifier().bert}.get(
        kind, lambda: make_model(kind)
    )()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with refused_in_one_line(re.escape(message)):
        prune(model, "k-prune", calibration=text(windows), **options)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

"""BitNet b1.58: what the method changes, what it reports, training it, saving it, and bad input."""

import copy
import re

import pytest
import torch
from tests.refusals import refused_in_one_line
from tests.whole_models import logits

from prunebook import prune
from prunebook.errors import UserError
from prunebook.measure import zeros
from prunebook.measure.footprint import footprint
from prunebook.methods import BitNetB158
from prunebook.models.loading import load_model, save_model
from prunebook.models.ternary import pack
from prunebook.models.ternary_linears import BitLinear, absmean_ternary
from prunebook.recovery.finetune import full
from prunebook.recovery.training import Training


@pytest.fixture
def ternary(make_model):
    """A small ternary model after a few steps of training, so that its latent weights are its
    own."""
    model = make_model("llama")
    prune(model, "bitnet-b158")
    text = torch.randint(100, (12, 16), generator=torch.Generator().manual_seed(3))
    full(model, text, Training(learning_rate=1e-2, batch=2))
    return model


@pytest.mark.parametrize("norm", [True, False])
def test_the_report_counts_the_zeros_that_are_computed_with(make_model, norm):
    model = make_model("llama")
    report = prune(model, "bitnet-b158", norm=norm)
    weights = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, BitLinear)
    }
    assert all((weight != 0).all() for weight in weights.values())  # latent ones are no zeros
    zeros = {
        name: (absmean_ternary(weight)[0] == 0).sum().item() for name, weight in weights.items()
    }
    assert report.layers == {name: count / weights[name].numel() for name, count in zeros.items()}
    assert report.sparsity == sum(zeros.values()) / sum(
        weight.numel() for weight in weights.values()
    )
    assert 0.25 < report.sparsity < 0.37  # Gaussian weights: 0.31
    assert (report.pattern, report.options) == (
        "ternary weights, 8-bit activations",
        {"norm": norm},
    )
    assert (report.reloads_with, report.calibration) == ("prunebook", None)
    assert model.prunebook_reports == [report]


@pytest.mark.parametrize("norm", [True, False])
def test_embedding_head_and_last_norm_stay(make_model, norm):
    model = make_model("llama", tie_word_embeddings=False)
    before = make_model("llama", tie_word_embeddings=False)
    prune(model, "bitnet-b158", norm=norm)
    assert type(model.lm_head) is torch.nn.Linear
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"):
        assert torch.equal(model.get_parameter(name), before.get_parameter(name))
    names = {name for name, _ in model.named_parameters()}
    assert any("input_layernorm" in name for name in names) is not norm


def test_it_learns_and_its_zeros_move(make_model):
    model = make_model("llama", initializer_range=0.1)
    share = prune(model, "bitnet-b158").sparsity
    before = {
        name: module.weight.clone()
        for name, module in model.named_modules()
        if isinstance(module, BitLinear)
    }
    text = torch.randint(100, (2, 16), generator=torch.Generator().manual_seed(3)).repeat(60, 1)
    training = Training(
        learning_rate=1e-2, second_rate=5e-3, weight_decay=0.1, warmup=2, batch=2, clip=1.0
    )
    losses = full(model, text, training)
    assert losses[-1] < losses[0] - 1.5
    assert not any(
        torch.equal(model.get_parameter(f"{name}.weight"), old) for name, old in before.items()
    )
    counts = zeros.count_zeros(model).values()
    assert sum(zeros for zeros, _ in counts) / sum(size for _, size in counts) != share


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("norm", [True, False])
def test_a_saved_model_reloads_with_equal_logits(
    make_model, word_tokenizer, tokens, tmp_path, norm, packed
):
    model = make_model("llama", rms_norm_eps=1e-3)
    prune(model, "bitnet-b158", norm=norm)
    if packed:
        pack(model)
    expected = logits(model, tokens)
    again, _ = load_model(save_model(model, word_tokenizer, tmp_path / "model"), device="cpu")
    assert type(again) is type(model)
    assert torch.equal(logits(again, tokens), expected)
    assert {name: tensor.dtype for name, tensor in again.state_dict().items()} == {
        name: tensor.dtype for name, tensor in model.state_dict().items()
    }
    assert not again.training
    twice, _ = load_model(save_model(again, word_tokenizer, tmp_path / "twice"), device="cpu")
    assert torch.equal(logits(twice, tokens), expected)


def test_a_trained_model_is_packed_saved_and_read_again(ternary, word_tokenizer, tokens, tmp_path):
    expected = logits(ternary, tokens)
    small = copy.deepcopy(ternary)
    pack(small)
    again, _ = load_model(save_model(small, word_tokenizer, tmp_path / "small"), device="cpu")
    assert torch.equal(logits(again, tokens), expected)


def test_a_damaged_entry_in_the_configuration_is_refused(make_model, word_tokenizer, tmp_path):
    model = make_model("llama")
    prune(model, "bitnet-b158")
    folder = save_model(model, word_tokenizer, tmp_path / "model")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"packed": false', '"dense": true'))
    with refused_in_one_line(r"prunebook_ternary in config\.json must hold norm and packed"):
        load_model(folder, device="cpu")


def test_two_bits_a_weight_and_a_scale_for_each_layer(make_model):
    model = make_model("llama")
    prune(model, "bitnet-b158")
    sizes = [size for _, size in zeros.count_zeros(model).values()]
    before = footprint(model, 16, speed=False)
    pack(model)
    after = footprint(model, 16, speed=False)
    assert before.bytes - after.bytes == 4 * sum(sizes) - sum(sizes) // 4 - 4 * len(sizes)
    assert after.flops == before.flops


def test_conversion_alone_costs_most_of_what_a_model_knows(make_model):
    """A model that has learned its text by heart, made ternary, forgets it; trained on, it learns
    it again."""
    model = make_model("llama")
    text = torch.randint(100, (2, 16), generator=torch.Generator().manual_seed(3)).repeat(60, 1)
    learned = full(model, text, Training(learning_rate=1e-2, batch=2))[-1]
    prune(model, "bitnet-b158", norm=False)
    losses = full(model, text, Training(learning_rate=1e-2, batch=2))
    assert losses[0] > learned + 1
    assert losses[-1] < learned + 0.5


@pytest.mark.parametrize("value", [None, 1, "own"])
def test_an_impossible_option(value):
    with pytest.raises(
        UserError, match=re.escape(f"norm {value!r} is not allowed; use True or False")
    ):
        BitNetB158(norm=value)


def test_a_ternary_model_is_not_made_ternary_again(make_model):
    model = make_model("llama")
    prune(model, "bitnet-b158")
    with pytest.raises(
        UserError, match="LlamaForCausalLM has ternary layers already; load the model again"
    ):
        prune(model, "bitnet-b158")


def test_other_methods_prune_latent_weights(make_model, tokens):
    """A latent zero is a zero: what Wanda removes stays out, and rounding adds to it."""
    model = make_model("llama")
    alone = prune(model, "bitnet-b158").sparsity
    report = prune(model, "wanda", sparsity=0.5, calibration=tokens)
    assert report.sparsity >= 0.5 > alone

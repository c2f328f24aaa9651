"""Compresso: what is cut computes what was masked, the budget is met, the multipliers rise and
fall, and bad input."""

import copy

import pytest
import torch
from tests.refusals import refused_in_one_line
from tests.whole_models import logits

from prunebook import prune
from prunebook.errors import UserError
from prunebook.methods import Compresso
from prunebook.methods.compresso.instruction_data import IGNORED
from prunebook.methods.compresso.size_budget import SizeBudget
from prunebook.models.anatomy import all_sublayers
from prunebook.models.loading import load_model, save_model
from prunebook.models.sizes import block_parameters
from prunebook.passes.masked import masked
from prunebook.sparsity.structured_masks import cut, mask_shapes

QUICK = {"sparsity": 0.3, "learning_rate": 1e-2, "mask_rate": 1.0, "multiplier_rate": 10.0}


def repeated(windows, count=24):
    """So many windows, the first after the last."""
    return windows[torch.arange(count) % len(windows)]


@pytest.fixture
def labelled(tokens):
    """Windows whose first ten tokens are not predicted."""
    labels = tokens.clone()
    labels[:, :10] = IGNORED
    return torch.stack([tokens, labels], 2)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("hidden", [True, False])
def test_what_is_cut_computes_what_was_masked(make_model, tokens, family, hidden):
    model = make_model(family)
    before = block_parameters(model)
    weights = copy.deepcopy(model.state_dict())
    result = Compresso(hidden=hidden, **QUICK).learn(model, repeated(tokens))
    changed = {
        name.split(".")[-2]
        for name, x in model.state_dict().items()
        if not torch.equal(x, weights[name])
    }
    assert changed == {"q_proj", "v_proj"}  # adapters are merged, all else is as it was
    assert set(model.state_dict()) == set(weights)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with masked(model, result.masks):
        expected = logits(model, tokens)
    assert not torch.equal(expected, logits(model, tokens))
    cut(model, result.masks)
    torch.testing.assert_close(logits(model, tokens), expected, rtol=1e-4, atol=1e-4)
    slack = SizeBudget(make_model(family), 0.3).groups["neurons"] / before / 2
    # biases of queries and norms of heads do not go with channels
    if hidden and family in ("qwen2", "qwen3"):
        slack += 0.005
    assert 1 - block_parameters(model) / before == pytest.approx(0.3, abs=slack)


@pytest.mark.parametrize("hidden", [True, False])
def test_what_is_saved_computes_the_same(make_model, tokens, word_tokenizer, tmp_path, hidden):
    model = make_model("llama")
    report = prune(model, "compresso", data=repeated(tokens), hidden=hidden, **QUICK)
    assert report.sparsity == pytest.approx(0.3, abs=0.003)
    assert report.pattern == f"heads, neurons{' and hidden channels' * hidden}, 0.3"
    assert all(parts.kv_heads and parts.neurons for parts in all_sublayers(model))
    save_model(model, word_tokenizer, tmp_path / "cut")
    again, _ = load_model(tmp_path / "cut", device="cpu")
    assert torch.equal(logits(again, tokens), logits(model, tokens))
    assert block_parameters(again) == block_parameters(model)


def test_adapters_alone_then_a_ramp_then_the_target(make_model, tokens):
    method = Compresso(lora_only=0.25, **QUICK)
    course = method.learn(make_model("llama"), repeated(tokens)).course
    target = course.target["size"]
    assert target.shape == course.loss.shape == (18,)  # masks come after six steps of 24
    torch.testing.assert_close(target[:13], 0.3 * torch.arange(13) / 12)
    assert (target[12:] == 0.3).all()
    assert course.removed["size"][0] < 0.01


def test_a_single_step_has_masks(make_model, tokens):
    result = Compresso(lora_only=0.5, **QUICK).learn(make_model("llama"), tokens[:1])
    assert result.course.loss.shape == (1,)


def test_steps_are_one_pass_over_the_data(make_model, tokens):
    course = Compresso(lora_only=0.0, batch_size=2, **QUICK).learn(make_model("llama"), tokens)
    assert len(course.course.loss) == 3


def test_multipliers_ascend(make_model, tokens):
    method = Compresso(lora_only=0.0, **QUICK | {"mask_rate": 2.0})
    course = method.learn(make_model("llama"), repeated(tokens, 40)).course
    first, second = course.multipliers["size"].T
    beyond = course.removed["size"] - course.target["size"]
    assert (second.diff() >= 0).all()
    assert beyond[0] > 0  # the target is 0 yet, and a little is removed
    # the rate, as always in the first step of Adam
    assert first[1] == pytest.approx(10.0, rel=1e-3)
    assert (beyond[1:6] < 0).all()
    assert (first[2:8].diff() < 0).all()
    assert course.removed["size"][-1] == pytest.approx(0.3, abs=0.15)


def test_labels_decide_what_is_learned(make_model, tokens, labelled):
    def loss(data):
        return Compresso(**QUICK).learn(make_model("llama"), repeated(data)).course.loss

    of_all = loss(tokens)
    assert of_all[0] != loss(labelled)[0]
    torch.testing.assert_close(loss(torch.stack([tokens, tokens], 2)), of_all)


def test_the_same_seed_finds_the_same(make_model, tokens):
    runs = []
    for seed in (0, 0, 1):
        method = Compresso(seed=seed, **QUICK)
        runs.append(method.learn(make_model("llama"), repeated(tokens)))
    same, again, other = (run.log_alpha["neurons"] for run in runs)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
    shapes = mask_shapes(make_model("llama"))
    del shapes["blocks"]
    assert {axis: tuple(mask.shape) for axis, mask in runs[0].masks.items()} == shapes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sparsity": 0.95},
            r"sparsity 0\.95 would take the last head or neuron of a block; use 0\.\d+ or less",
        ),
        ({"batch_size": 8}, r"tokens \[2, 16\] make no step of 8 windows"),
        ({"data": None}, "method 'compresso' needs data"),
    ],
)
def test_what_a_model_or_data_does_not_allow_changes_nothing(make_model, tokens, options, message):
    model = make_model("llama")
    before = logits(model, tokens)
    with refused_in_one_line(message):
        prune(model, "compresso", **{"data": tokens[:2]} | options)
    assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("gpt2", {}, "GPT2Block has no heads and neurons that can be told apart"),
        ("opt", {}, "OPTForCausalLM cannot lose hidden channels"),
    ],
)
def test_architectures_without_such_groups_are_refused(
    make_model, tokens, family, options, message
):
    model = make_model(family)
    before = logits(model, tokens)
    with pytest.raises(UserError, match=message):
        prune(model, "compresso", data=tokens[:2], **options)
    assert torch.equal(logits(model, tokens), before)


def test_heads_and_neurons_go_without_hidden_channels_where_these_cannot(make_model, tokens):
    model = make_model("opt")
    report = prune(model, "compresso", data=repeated(tokens), hidden=False, **QUICK)
    assert report.sparsity == pytest.approx(0.3, abs=0.003)

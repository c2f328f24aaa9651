"""Sheared LLaMA: exactly the shape asked for, what was learned and how, what is trained, and bad
input."""

import copy
import re

import pytest
import torch
import transformers
from tests.refusals import refused_in_one_line
from tests.whole_models import logits

from prunebook import prune
from prunebook.errors import UserError
from prunebook.methods import ShearedLLaMA
from prunebook.models.anatomy import all_sublayers
from prunebook.models.loading import save_model
from prunebook.models.sizes import block_parameters
from prunebook.passes.backward import next_token_loss
from prunebook.passes.masked import masked
from prunebook.sparsity.structured_masks import cut, mask_shapes

SHAPE = {"keep_blocks": 2, "keep_heads": 2, "keep_neurons": 30, "keep_hidden": 24}
FULL = {"blocks": 3, "heads": 4, "neurons": 48, "hidden": 32}


def repeated(windows, count):
    """So many windows, the first after the last."""
    return windows[torch.arange(count) % len(windows)]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_exactly_the_shape_asked_for_as_an_ordinary_model(
    make_model, word_tokenizer, tokens, tmp_path, family
):
    model = make_model(family)
    before = block_parameters(model)
    report = prune(model, "sheared-llama", **SHAPE, data=tokens[:5])
    assert {(x.heads, x.kv_heads, x.neurons) for x in all_sublayers(model)} == {(2, 1, 30)}
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 24)
    assert (report.reloads_with, report.pattern) == (
        "transformers",
        "30 neurons, 2 heads, 24 hidden, 2 blocks",
    )
    assert report.sparsity == 1 - block_parameters(model) / before
    save_model(model, word_tokenizer, tmp_path / "small")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert torch.equal(logits(again, tokens), logits(model, tokens))


@pytest.mark.parametrize("axis", list(FULL))
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_masks_alone_leave_weights_and_cut_what_was_learned(make_model, tokens, axis, precision):
    model = make_model("llama")
    dense = make_model("llama")
    report = prune(
        model,
        "sheared-llama",
        **{f"keep_{axis}": SHAPE[f"keep_{axis}"]},
        learning_rate=0,
        precision=precision,
        data=tokens,
    )
    masks = report.details.masks
    assert list(masks) == [axis]
    assert all(parameter.requires_grad for parameter in model.parameters())
    with masked(dense, masks):
        expected = logits(dense, tokens)
    torch.testing.assert_close(logits(model, tokens), expected, atol=1e-4, rtol=0)
    cut(dense, masks)
    assert all(
        torch.equal(*pair) for pair in zip(dense.parameters(), model.parameters(), strict=True)
    )


def test_the_course_goes_by_step(make_model, tokens):
    method = ShearedLLaMA(**SHAPE, mask_rate=0.5)
    course = method.learn(make_model("llama"), repeated(tokens, 20)).course
    assert len(course.loss) == 20
    assert set(course.removed) == set(FULL)
    for axis, full in FULL.items():
        fraction = 1 - SHAPE[f"keep_{axis}"] / full
        ramp = torch.arange(20).clamp(max=4) / 4  # a fifth of the steps
        torch.testing.assert_close(course.target[axis], fraction * ramp)
        # log alpha starts on the clamp
        assert course.removed[axis][0].item() == pytest.approx(0.00201, rel=1e-2)
        assert (course.removed[axis].diff() > 0).any()
        multipliers = course.multipliers[axis]
        assert torch.equal(multipliers[0], torch.zeros(2))
        assert (multipliers[:, 1].diff() >= 0).all()
        assert multipliers[4, 0] < 0  # too little is removed so far
    first = next_token_loss(make_model("llama"), tokens[:1]).item()
    # nearly all masks are 1 at the start
    assert course.loss[0].item() == pytest.approx(first, rel=0.2)


def test_the_expected_size_settles_at_the_target(make_model, tokens):
    method = ShearedLLaMA(keep_neurons=36, mask_rate=0.2, multiplier_rate=0.05)
    course = method.learn(make_model("llama"), repeated(tokens, 200)).course
    assert 48 * (1 - course.removed["neurons"][-1].item()) == pytest.approx(36, abs=0.05 * 48)


def test_masks_find_what_adds_nothing(make_model, tokens):
    """Neurons that nobody reads cost nothing, so they go first."""
    model = make_model("llama")
    silent = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:12]
    for parts in all_sublayers(model):
        parts.last.weight.data[:, silent] = 0
    method = ShearedLLaMA(keep_neurons=36, learning_rate=0, mask_rate=0.1, multiplier_rate=0.03)
    removed = ~method.learn(model, repeated(tokens[:2], 60)).masks["neurons"]
    assert removed[:, silent].float().mean() > 0.9  # a quarter by chance


def test_the_same_seed_learns_the_same(make_model, tokens):
    runs = []
    for seed in (0, 0, 1):
        method = ShearedLLaMA(keep_neurons=30, seed=seed)
        runs.append(method.learn(make_model("llama"), repeated(tokens, 8)))
    assert torch.equal(runs[0].course.loss, runs[1].course.loss)
    for name in ("masks", "log_alpha"):
        same, again = (getattr(run, name)["neurons"] for run in runs[:2])
        assert torch.equal(same, again)
    assert not torch.equal(runs[0].course.loss, runs[2].course.loss)


def test_weights_are_trained_under_the_masks(make_model, tokens):
    model = make_model("llama")
    before = copy.deepcopy(model.state_dict())
    ShearedLLaMA(keep_blocks=2).learn(model, tokens[:6])
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(model.state_dict()) == set(before)
    assert not model.training


def test_a_rate_of_0_leaves_the_weights(make_model, tokens):
    model = make_model("llama")
    before = copy.deepcopy(model.state_dict())
    ShearedLLaMA(keep_blocks=2, learning_rate=0).learn(model, tokens)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_steps_are_one_pass_over_the_data(make_model, tokens):
    lengths = []
    for batch_size in (1, 2, 7):
        method = ShearedLLaMA(keep_blocks=2, batch_size=batch_size)
        lengths.append(len(method.learn(make_model("llama"), tokens).course.loss))
    assert lengths == [7, 3, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give sizes that stay, e.g. keep_blocks=24 or keep_neurons=1024"),
        ({"keep_blocks": 0}, "keep_blocks 0 is not allowed; use a whole number >= 1"),
        ({"keep_heads": 2.5}, "keep_heads 2.5 is not allowed; use a whole number >= 1"),
        ({"keep_blocks": 2, "batch_size": 0}, "batch_size 0 is not allowed; use a whole number >="),
        ({"keep_blocks": 2, "mask_rate": -1}, "mask_rate -1 is not allowed; use a number >= 0"),
        ({"keep_blocks": 2, "learning_rate": None}, "learning_rate None is not allowed"),
        (
            {"keep_blocks": 2, "precision": "low"},
            "precision 'low' is not allowed for sheared-llama",
        ),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        ShearedLLaMA(**options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", {"keep_neurons": 49}, "neurons 49 of 48 cannot stay; use 1 to 48"),
        (
            "llama",
            {"keep_heads": 3},
            "heads 3 are no whole key-value heads, read by 2 each; nearest: 4",
        ),
        ("llama", {"keep_hidden": 30}, "30 hidden channels do not divide among 4 heads"),
        (
            "llama",
            {"keep_hidden": 31, "keep_heads": 2},
            "31 hidden channels do not divide among 2 heads",
        ),
        (
            "llama",
            {"keep_blocks": 2, "batch_size": 8},
            "make no step of 8 windows of 2 tokens or more; give more",
        ),
        ("opt", {"keep_hidden": 16}, "OPTForCausalLM cannot lose hidden channels"),
        ("gpt2", {"keep_neurons": 10}, "GPT2Block has no heads and neurons that can be told apart"),
    ],
)
def test_what_a_model_does_not_allow_leaves_it_as_it_was(
    make_model, tokens, family, options, message
):
    model = make_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with refused_in_one_line(re.escape(message)):
        prune(model, "sheared-llama", data=tokens, **options)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_classifier_is_refused(make_classifier, tokens):
    with pytest.raises(UserError, match="has no language-model head"):
        prune(make_classifier(), "sheared-llama", keep_blocks=2, data=tokens)


def test_shapes_of_masks(make_model):
    shapes = {"blocks": (3,), "heads": (3, 2), "neurons": (3, 48), "hidden": (32,)}
    assert mask_shapes(make_model("llama")) == shapes

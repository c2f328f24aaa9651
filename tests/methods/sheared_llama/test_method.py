"""Sheared LLaMA: exactly the shape asked for, what was learned and how, what is trained, and bad
input."""

import copy
import re

import pytest
import torch
import transformers

from prunebook import prune
from prunebook.errors import UserError
from prunebook.methods import ShearedLLaMA
from prunebook.models.anatomy import all_sublayers
from prunebook.models.loading import save_model
from prunebook.models.sizes import block_parameters
from prunebook.passes.backward import next_token_loss
from prunebook.passes.masked import masked
from prunebook.sparsity.structured_masks import cut, mask_shapes

SHAPE = {"blocks": 2, "heads": 2, "neurons": 30, "hidden": 24}


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens).logits


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_exactly_the_shape_asked_for_as_an_ordinary_model(
    make_model, word_tokenizer, tokens, tmp_path, family
):
    model = make_model(family)
    before = block_parameters(model)
    report = prune(model, "sheared-llama", **SHAPE, steps=5, data=tokens)
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


@pytest.mark.parametrize("axis", list(SHAPE))
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_masks_alone_leave_weights_and_cut_what_was_learned(make_model, tokens, axis, precision):
    model = make_model("llama")
    dense = make_model("llama")
    option = {axis: SHAPE[axis]}
    prune(
        model,
        "sheared-llama",
        **option,
        train_weights=False,
        precision=precision,
        data=tokens,
    )
    learned = report.details
    assert list(learned.masks) == [axis]
    assert all(parameter.requires_grad for parameter in model.parameters())
    with masked(dense, learned.masks):
        wanted = logits(dense, tokens)
    torch.testing.assert_close(logits(model, tokens), wanted, atol=1e-4, rtol=0)
    cut(dense, learned.masks)
    assert all(
        torch.equal(*pair) for pair in zip(dense.parameters(), model.parameters(), strict=True)
    )


def test_the_course_is_told_by_step(make_model, tokens):
    model = make_model("llama")
    method = ShearedLLaMA(**SHAPE, steps=20, ramp=0.5, mask_rate=0.5)
    learned = method.learn(model, tokens)
    full = {"blocks": 3, "heads": 4, "neurons": 48, "hidden": 32}
    assert len(learned.loss) == 20
    assert set(learned.left) == set(SHAPE)
    for axis, size in SHAPE.items():
        wanted = learned.wanted[axis]
        multipliers = learned.multipliers[axis]
        steps = torch.arange(20).clamp(max=10) / 10
        torch.testing.assert_close(wanted, full[axis] - (full[axis] - size) * steps)
        # on the clamp
        assert learned.left[axis][0].item() == pytest.approx(full[axis] * (1 - 0.00201), rel=1e-3)
        assert (learned.left[axis].diff() < 0).any()
        assert torch.equal(multipliers[0], torch.zeros(2))
        assert (multipliers[:, 1].diff() >= 0).all()
        assert multipliers[10, 0] < 0  # too little has gone so far
    dense = make_model("llama")
    first = next_token_loss(dense, tokens[:1]).item()
    # nearly all masks are 1 at the start
    assert learned.loss[0].item() == pytest.approx(first, rel=0.2)


def test_the_expected_size_settles_at_the_target(make_model, tokens):
    method = ShearedLLaMA(neurons=36, steps=200, mask_rate=0.2, multiplier_rate=0.05)
    learned = method.learn(make_model("llama"), tokens)
    assert learned.left["neurons"][-1].item() == pytest.approx(36, abs=0.05 * 48)


def test_masks_find_what_adds_nothing(make_model, tokens):
    """Neurons that nobody reads cost nothing, so they go first."""
    model = make_model("llama")
    silent = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:12]
    for parts in all_sublayers(model):
        parts.last.weight.data[:, silent] = 0
    method = ShearedLLaMA(
        neurons=36, steps=60, mask_rate=0.1, multiplier_rate=0.03, train_weights=False
    )
    found = ~method.learn(model, tokens[:2]).masks["neurons"]
    assert found[:, silent].float().mean() > 0.9  # a quarter by chance


def test_the_same_seed_learns_the_same(make_model, tokens):
    found = [
        ShearedLLaMA(neurons=30, steps=8, seed=seed).learn(make_model("llama"), tokens)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0].loss, found[1].loss)
    assert torch.equal(found[0].masks["neurons"], found[1].masks["neurons"])
    assert not torch.equal(found[0].loss, found[2].loss)


def test_weights_are_trained_under_the_masks(make_model, tokens):
    model = make_model("llama")
    before = copy.deepcopy(model.state_dict())
    ShearedLLaMA(blocks=2, steps=6).learn(model, tokens)
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(model.state_dict()) == set(before)
    assert not model.training


def test_steps_repeat_the_windows_or_take_one_pass(make_model, tokens):
    lengths = [
        len(ShearedLLaMA(blocks=2, **options).learn(make_model("llama"), tokens).loss)
        for options in ({}, {"batch": 2}, {"steps": 9}, {"steps": 4, "batch": 3})
    ]
    assert lengths == [7, 3, 9, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give sizes that stay, as blocks=24 or neurons=1024"),
        ({"blocks": 0}, "blocks 0 is not allowed; use a whole number >= 1"),
        ({"heads": 2.5}, "heads 2.5 is not allowed; use a whole number >= 1"),
        ({"blocks": 2, "steps": 0}, "steps 0 is not allowed; use a whole number >= 1"),
        ({"blocks": 2, "mask_rate": -1}, "mask_rate -1 is not allowed; use a number >= 0"),
        (
            {"blocks": 2, "ramp": 1.5},
            "ramp 1.5 is not allowed; use a share of the steps from 0 to 1, as 0.2",
        ),
        ({"blocks": 2, "train_weights": 1}, "train_weights 1 is not allowed; use True or False"),
        ({"blocks": 2, "precision": "low"}, "precision 'low' is not allowed for sheared-llama"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        ShearedLLaMA(**options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", {"neurons": 49}, "neurons 49 of 48 cannot stay; use 1 to 48"),
        ("llama", {"heads": 3}, "heads 3 are no whole key-value heads, read by 2 each; nearest: 4"),
        ("llama", {"hidden": 30}, "30 hidden channels do not divide among 4 heads"),
        ("llama", {"hidden": 31, "heads": 2}, "31 hidden channels do not divide among 2 heads"),
        (
            "llama",
            {"blocks": 2, "batch": 8},
            "make no step of 8 windows of 2 tokens or more; give more",
        ),
        ("opt", {"hidden": 16}, "OPTForCausalLM cannot lose hidden channels"),
        ("gpt2", {"neurons": 10}, "GPT2Block has no heads and neurons that can be told apart"),
    ],
)
def test_what_a_model_does_not_allow_leaves_it_as_it_was(
    make_model, tokens, family, options, message
):
    model = make_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        prune(model, "sheared-llama", data=tokens, **options)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_classifier_is_refused(make_classifier, tokens):
    with pytest.raises(UserError, match="has no language-model head"):
        prune(make_classifier(), "sheared-llama", blocks=2, data=tokens)


def test_shapes_of_masks(make_model):
    shapes = {"blocks": (3,), "heads": (3, 2), "neurons": (3, 48), "hidden": (32,)}
    assert mask_shapes(make_model("llama")) == shapes

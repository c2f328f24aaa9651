"""Gradient times weight: against float64 autograd, finite differences and cases by hand."""

import copy

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.llm_pruner.group_scores import unit_scores
from prunebook.methods.llm_pruner.taylor import saliences
from prunebook.models.anatomy import all_sublayers, find_stack
from prunebook.passes.backward import next_token_loss

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "opt")


def loss_of(model, batch):
    """Mean next-token loss in float64, written out."""
    logits = model(input_ids=batch).logits[:, :-1]
    return -logits.log_softmax(-1).gather(-1, batch[:, 1:, None]).mean()


def by_autograd(model, tokens):
    """Name -> weight, gradient of the mean loss, and mean over windows of the squared gradient, in
    float64."""
    wide = copy.deepcopy(model).double()
    loss_of(wide, tokens).backward()
    whole = {name: p.grad.clone() for name, p in wide.named_parameters()}
    squares = {name: torch.zeros_like(p) for name, p in wide.named_parameters()}
    for window in tokens:
        wide.zero_grad()
        loss_of(wide, window[None]).backward()
        for name, p in wide.named_parameters():
            squares[name] += p.grad.square() / len(tokens)
    return {name: (p.detach(), whole[name], squares[name]) for name, p in wide.named_parameters()}


EXPECTED = {
    "vector": lambda w, g, a: w * g,
    "element1": lambda w, g, a: w * g,
    "element2": lambda w, g, a: w * a * w,
    "mix": lambda w, g, a: w * g - w * a * w / 2,
    "l2": lambda w, g, a: w * w,
}


@pytest.mark.parametrize(
    ("family", "criterion", "channels"),
    [
        *(("llama", criterion, channels) for criterion in EXPECTED for channels in (False, True)),
        *((family, "mix", False) for family in FAMILIES[1:]),
        ("opt", "element1", True),
    ],
)
def test_saliences_are_those_of_autograd(
    make_model, tokens, family, criterion, channels, monkeypatch
):
    monkeypatch.setattr(
        "prunebook.passes.backward.TOKENS_PER_PASS", {"cpu": 32}
    )  # two windows a pass
    model = make_model(family)
    found = saliences(model, tokens, criterion, channels=channels)
    expected = by_autograd(model, tokens)
    inside = {id(p) for block in find_stack(model)[1] for p in block.parameters()}
    for name, p in model.named_parameters():
        if criterion != "l2" and not channels and id(p) not in inside:
            assert p not in found
            continue
        right = EXPECTED[criterion](*expected[name]).float()
        torch.testing.assert_close(found[p], right, rtol=1e-3, atol=1e-4 * right.abs().max().item())


@pytest.mark.parametrize("criterion", ["element1", "mix"])
def test_flags_and_weights_are_as_before_and_no_gradient_stays(make_model, tokens, criterion):
    model = make_model("llama")
    frozen = model.model.layers[1].mlp.up_proj.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    found = saliences(model, tokens, criterion)
    assert found[frozen].abs().sum() > 0
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_after_a_fault_too(make_model, tokens):
    model = make_model("llama")
    frozen = model.lm_head.weight.requires_grad_(False)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(
        UserError, match="calibration gradients hold NaN or infinity; use a wider dtype"
    ):
        saliences(model, tokens, "element1")
    assert not frozen.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)
    with pytest.raises(UserError, match="windows of at least 2 tokens"):
        saliences(model, tokens[:, :1], "mix")


# RMS norms compute in float32; ReLU has kinks.
@pytest.mark.parametrize(("family", "step"), [("llama", 1e-2), ("qwen3", 1e-2), ("opt", 1e-5)])
def test_a_small_step_changes_the_loss_as_first_order_says(make_model, tokens, family, step):
    model = make_model(family).double()
    salience = saliences(model, tokens, "vector")
    parts = all_sublayers(model)[1]
    size = parts.head_dim
    shares = [
        (parts.first[0].weight, slice(5, 6)),
        (parts.last.weight, (slice(None), 7)),
        (parts.query.weight, slice(size, 2 * size)),
        (parts.out.weight, (slice(None), slice(0, size))),
    ]
    for weight, share in shares:
        change = []
        eps = step
        for sign in (1, -1):
            original = weight.detach().clone()
            with torch.no_grad():
                weight[share] *= 1 - sign * eps
                change.append(loss_of(model, tokens))
                weight.copy_(original)
        by_difference = (change[0] - change[1]).item() / 2
        assert by_difference == pytest.approx(
            -eps * salience[weight][share].sum().item(), rel=1e-2, abs=1e-7 if step > 1e-3 else 0
        )


def test_squares_of_small_gradients_do_not_vanish_in_float16(make_model, tokens):
    model = make_model("llama", initializer_range=0.02)
    wide = unit_scores(all_sublayers(model)[0], saliences(model, tokens, "element2"), "element2")[1]
    narrow = unit_scores(
        all_sublayers(model.half())[0], saliences(model, tokens, "element2"), "element2"
    )[1]
    assert wide.max() < 1e-6  # below what float16 holds
    torch.testing.assert_close(narrow, wide, rtol=0.1, atol=0)


def test_the_loss_is_the_mean_over_predicted_tokens(make_model, tokens):
    model = make_model("llama")
    assert next_token_loss(model, tokens).item() == pytest.approx(
        loss_of(model.double(), tokens).item(), rel=1e-5
    )

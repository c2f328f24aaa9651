"""Gradient times weight: against float64 autograd, finite differences and cases by hand."""

import copy

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.llm_pruner.taylor import channel_scores, saliences, unit_scores
from prunebook.models.anatomy import find_stack, sublayers
from prunebook.models.surgery import keep_heads, keep_neurons
from prunebook.passes.backward import next_token_loss

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "opt")


def parts_of(model):
    return [sublayers(block) for block in find_stack(model)[1]]


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
    monkeypatch.setattr("prunebook.passes.backward.TOKENS_PER_PASS", {"cpu": 32})  # two windows a pass
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
    parts = parts_of(model)[1]
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


@pytest.mark.parametrize("criterion", list(EXPECTED))
def test_scores_follow_neurons_and_groups_that_change_places(make_model, tokens, criterion):
    model = make_model("llama")
    moved = make_model("llama")
    order = torch.randperm(48, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parts in parts_of(moved):
            for linear in parts.first:
                linear.weight.copy_(linear.weight[order])
            parts.last.weight.copy_(parts.last.weight[:, order])
            for linear in (parts.query, parts.key, parts.value):
                linear.weight.copy_(linear.weight.unflatten(0, (2, -1)).flip(0).flatten(0, 1))
            parts.out.weight.copy_(parts.out.weight.unflatten(1, (2, -1)).flip(1).flatten(1))
    salience = saliences(model, tokens, criterion)
    other = saliences(moved, tokens, criterion)
    for here, there in zip(parts_of(model), parts_of(moved), strict=True):
        heads, neurons = unit_scores(here, salience, criterion)
        heads_moved, neurons_moved = unit_scores(there, other, criterion)
        torch.testing.assert_close(neurons_moved, neurons[order], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(heads_moved, heads.flip(0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("criterion", list(EXPECTED))
def test_a_dead_neuron_scores_nothing(make_model, tokens, criterion):
    model = make_model("llama")
    mlp = model.model.layers[1].mlp
    with torch.no_grad():
        mlp.down_proj.weight[:, 11] = 0
        if criterion == "l2":
            mlp.up_proj.weight[11] = mlp.gate_proj.weight[11] = 0
    scores = unit_scores(parts_of(model)[1], saliences(model, tokens, criterion), criterion)[1]
    assert scores[11] == 0
    assert (scores > 0).sum() == 47


def by_hand():
    """Sublayers of width 2 with 4 query heads of 2 channels, 2 key-value heads and 3 neurons;
    salience of each row or column `x` is `(x, -x / 2)`."""
    import transformers

    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=4,
            hidden_size=4,
            intermediate_size=3,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=2,
        )
    )
    parts = parts_of(model)[0]
    pair = torch.tensor([1.0, -0.5, 0, 0])

    def rows(*values):
        return torch.tensor(values, dtype=torch.float32)[:, None] * pair

    salience = {
        parts.query.weight: rows(1, 2, 3, 4, 5, 6, 7, 8),
        parts.key.weight: rows(10, 20, 30, 40),
        parts.value.weight: rows(1, 1, 2, 2),
        parts.out.weight: rows(0, 1, 0, 2, 0, 3, 0, 4).T,
        parts.first[0].weight: rows(1, -2, 3),
        parts.first[1].weight: rows(4, 5, 6),
        parts.last.weight: rows(-7, 0, 9).T,
    }
    return parts, salience


# Per channel of a group, contiguous: queries 4 6 12 14 (heads 0+1, 2+3), out 0 3 0 7; strided: 6 8
# 10 12, 0 4 0 6.
@pytest.mark.parametrize(
    ("aggregation", "credit", "heads", "neurons"),
    [
        ("sum", "contiguous", [45.0, 107.0], [12.0, 7.0, 18.0]),
        ("sum", "strided", [6 + 8 + 30 + 2 + 4, 10 + 12 + 70 + 4 + 6], [12.0, 7.0, 18.0]),
        ("max", "contiguous", [30.0, 70.0], [7.0, 5.0, 9.0]),
        ("last", "contiguous", [3.0, 7.0], [7.0, 0.0, 9.0]),
        ("last", "strided", [4.0, 6.0], [7.0, 0.0, 9.0]),
        ("prod", "contiguous", [6 * 20 * 1 * 3, 14 * 40 * 2 * 7], [28.0, 0.0, 162.0]),
        ("prod", "strided", [8 * 20 * 1 * 4, 12 * 40 * 2 * 6], [28.0, 0.0, 162.0]),
    ],
)
@pytest.mark.parametrize(("criterion", "factor"), [("vector", 0.5), ("element1", 1.5)])
def test_scores_by_hand(criterion, factor, aggregation, credit, heads, neurons):
    parts, salience = by_hand()
    of_heads, of_neurons = unit_scores(parts, salience, criterion, aggregation, credit)
    power = (4, 3) if aggregation == "prod" else (1, 1)
    assert of_heads.tolist() == pytest.approx([x * factor ** power[0] for x in heads])
    assert of_neurons.tolist() == pytest.approx([x * factor ** power[1] for x in neurons])


def test_credit_makes_no_difference_where_every_head_has_its_own_keys(make_model, tokens):
    model = make_model("llama", num_key_value_heads=4)
    salience = saliences(model, tokens, "mix")
    for parts in parts_of(model):
        one, other = (
            unit_scores(parts, salience, "mix", credit=credit)[0]
            for credit in ("contiguous", "strided")
        )
        assert torch.equal(one, other)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("criterion", ["vector", "element1"])
def test_hidden_channels_are_scored_by_all_that_touch_them(make_model, tokens, criterion, tied):
    # its q_norm is as wide as the model
    model = make_model("qwen3", head_dim=32, tie_word_embeddings=tied)
    weights = by_autograd(model, tokens)
    expected = torch.zeros(32, dtype=torch.float64)
    for name, (w, g, _) in weights.items():
        s = w * g
        if "q_norm" in name or "k_norm" in name:
            continue
        if "norm" in name:
            expected += s.abs()
            continue
        # summed over the other side
        side = 1 if any(part in name for part in ("o_proj", "down_proj")) else 0
        expected += s.sum(side).abs() if criterion == "vector" else s.abs().sum(side)
    found = channel_scores(model, saliences(model, tokens, criterion, channels=True), criterion)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5)


def test_a_product_over_all_channel_members_neither_vanishes_nor_ties(make_model, tokens):
    model = make_model("llama")
    salience = {p: s * 1e-8 for p, s in saliences(model, tokens, "element1", channels=True).items()}
    scores = channel_scores(model, salience, "element1", "prod")
    assert scores.isfinite().all()
    assert len(scores.unique()) == 32


def test_narrow_weights_do_not_tie(make_model, tokens):
    model = make_model("llama").bfloat16()
    for criterion in ("element1", "element2"):
        salience = saliences(model, tokens, criterion)
        for parts in parts_of(model):
            assert len(unit_scores(parts, salience, criterion)[1].unique()) == 48


def test_squares_of_small_gradients_do_not_vanish_in_float16(make_model, tokens):
    model = make_model("llama", initializer_range=0.02)
    wide = unit_scores(parts_of(model)[0], saliences(model, tokens, "element2"), "element2")[1]
    narrow = unit_scores(
        parts_of(model.half())[0], saliences(model, tokens, "element2"), "element2"
    )[1]
    assert wide.max() < 1e-6  # below what float16 holds
    torch.testing.assert_close(narrow, wide, rtol=0.1, atol=0)


def test_uneven_blocks_are_scored_too(make_model, tokens):
    model = make_model("llama")
    parts = parts_of(model)[1]
    keep_heads(parts, [2, 3])
    keep_neurons(parts, range(9))
    heads, neurons = unit_scores(parts, saliences(model, tokens, "element1"), "element1")
    assert (len(heads), len(neurons)) == (1, 9)


def test_the_loss_is_the_mean_over_predicted_tokens(make_model, tokens):
    model = make_model("llama")
    assert next_token_loss(model, tokens).item() == pytest.approx(
        loss_of(model.double(), tokens).item(), rel=1e-5
    )

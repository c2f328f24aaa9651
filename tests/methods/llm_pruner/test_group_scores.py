"""Scores of coupled groups: permutations, cases by hand, and sums beside plain autograd."""

import copy

import pytest
import torch

from prunebook.methods.llm_pruner.group_scores import channel_scores, unit_scores
from prunebook.methods.llm_pruner.taylor import CRITERIA, saliences
from prunebook.models.anatomy import all_sublayers
from prunebook.models.surgery import keep_heads, keep_neurons
from prunebook.passes.backward import next_token_loss


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_follow_neurons_and_groups_that_change_places(make_model, tokens, criterion):
    model = make_model("llama")
    moved = make_model("llama")
    order = torch.randperm(48, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parts in all_sublayers(moved):
            for linear in parts.first:
                linear.weight.copy_(linear.weight[order])
            parts.last.weight.copy_(parts.last.weight[:, order])
            for linear in (parts.query, parts.key, parts.value):
                linear.weight.copy_(linear.weight.unflatten(0, (2, -1)).flip(0).flatten(0, 1))
            parts.out.weight.copy_(parts.out.weight.unflatten(1, (2, -1)).flip(1).flatten(1))
    salience = saliences(model, tokens, criterion)
    other = saliences(moved, tokens, criterion)
    for here, there in zip(all_sublayers(model), all_sublayers(moved), strict=True):
        heads, neurons = unit_scores(here, salience, criterion)
        heads_moved, neurons_moved = unit_scores(there, other, criterion)
        torch.testing.assert_close(neurons_moved, neurons[order], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(heads_moved, heads.flip(0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_dead_neuron_scores_nothing(make_model, tokens, criterion):
    model = make_model("llama")
    mlp = model.model.layers[1].mlp
    with torch.no_grad():
        mlp.down_proj.weight[:, 11] = 0
        if criterion == "l2":
            mlp.up_proj.weight[11] = mlp.gate_proj.weight[11] = 0
    scores = unit_scores(all_sublayers(model)[1], saliences(model, tokens, criterion), criterion)[1]
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
    parts = all_sublayers(model)[0]
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
    for parts in all_sublayers(model):
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
    wide = copy.deepcopy(model).double()
    next_token_loss(wide, tokens).backward()
    expected = torch.zeros(32, dtype=torch.float64)
    for name, parameter in wide.named_parameters():
        s = parameter.detach() * parameter.grad
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
        for parts in all_sublayers(model):
            assert len(unit_scores(parts, salience, criterion)[1].unique()) == 48


def test_uneven_blocks_are_scored_too(make_model, tokens):
    model = make_model("llama")
    parts = all_sublayers(model)[1]
    keep_heads(parts, [2, 3])
    keep_neurons(parts, range(9))
    heads, neurons = unit_scores(parts, saliences(model, tokens, "element1"), "element1")
    assert (len(heads), len(neurons)) == (1, 9)

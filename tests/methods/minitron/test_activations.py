"""Activation scores of all axes: agreement with plain hooks, permutations."""

import copy

import pytest
import torch
from tests.whole_models import logits

from prunebook.errors import UserError
from prunebook.methods.minitron.activations import activation_importance
from prunebook.methods.minitron.aggregation import SAMPLE_AGGREGATIONS, TOKEN_AGGREGATIONS
from prunebook.models.anatomy import find_stack, sublayers
from prunebook.passes import sequential


def by_hooks(model, tokens):
    """What flows where, from one plain pass: name of module -> (input, output)."""
    seen = {}
    handles = [
        module.register_forward_hook(lambda _, i, o, name=name: seen.update({name: (i, o)}))
        for name, module in model.named_modules()
    ]
    with torch.no_grad():
        model(input_ids=tokens)
    for handle in handles:
        handle.remove()
    return seen


def aggregate(values, over_samples, over_tokens):
    """The paper's formulas, in float64, over tokens and then samples of `values [n, tokens,
    units]`."""
    formulas = {
        "mean": lambda x, dim: x.abs().mean(dim),
        "l2": lambda x, dim: x.square().sum(dim).sqrt(),
        "var": lambda x, dim: (x - x.mean(dim, keepdim=True)).square().mean(dim),
    }
    return formulas[over_samples](formulas[over_tokens](values.double(), 1), 0)


@pytest.mark.parametrize("over_samples", SAMPLE_AGGREGATIONS)
@pytest.mark.parametrize("over_tokens", TOKEN_AGGREGATIONS)
def test_scores_equal_those_from_plain_hooks(make_model, tokens, over_samples, over_tokens):
    model = make_model("llama")
    seen = by_hooks(model, tokens)
    token, channel = (
        activation_importance(
            model,
            tokens,
            sample_aggregation=over_samples,
            token_aggregation=over_tokens,
            head_norm=norm,
        )
        for norm in ("token", "channel")
    )
    hidden = 0
    for index in range(3):
        name = f"model.layers.{index}"
        out = seen[f"{name}.self_attn.o_proj"][0][0].unflatten(-1, (4, 8))
        of_heads = aggregate(out.double().norm(dim=-1), over_samples, over_tokens)
        of_channels = aggregate(out.flatten(-2), over_samples, over_tokens).view(4, 8).norm(dim=1)
        of_neurons = aggregate(seen[f"{name}.mlp.down_proj"][0][0], over_samples, over_tokens)
        torch.testing.assert_close(token.heads[index], of_heads, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(channel.heads[index], of_channels, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(token.neurons[index], of_neurons, rtol=1e-4, atol=1e-6)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            hidden = hidden + aggregate(seen[f"{name}.{norm}"][1], over_samples, over_tokens)
        before = seen[name][0][0]
        after = seen[name][1]
        after = after[0] if isinstance(after, tuple) else after
        dots = (before * after).sum(-1) / before.norm(dim=-1) / after.norm(dim=-1)
        assert token.influence[index].item() == pytest.approx(
            1 - dots.double().mean().item(), abs=1e-6
        )
    torch.testing.assert_close(token.hidden, hidden, rtol=1e-4, atol=1e-6)


def every(found):
    return [*found.heads, *found.neurons, found.hidden, found.influence]


def test_scores_do_not_depend_on_how_windows_are_batched(make_model, tokens, monkeypatch):
    model = make_model("qwen3")
    found = []
    for windows in (1, 3, 7):
        monkeypatch.setitem(sequential.TOKENS_PER_PASS, ("cpu", "exact"), windows * tokens.shape[1])
        found.append(every(activation_importance(model, tokens)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-7)


def test_permuted_neurons_and_heads_have_permuted_scores(make_model, tokens):
    model = make_model("llama", num_attention_heads=6, hidden_size=36)
    before = activation_importance(model, tokens)
    changed = copy.deepcopy(model)
    neurons = torch.randperm(48)  # three of them read one key-value head
    heads = [2, 0, 1, 3, 5, 4]
    channels = torch.tensor([head * 8 + i for head in heads for i in range(8)])
    for block in find_stack(changed)[1]:
        parts = sublayers(block)
        for linear in parts.first:
            linear.weight.data = linear.weight.data[neurons]
        parts.last.weight.data = parts.last.weight.data[:, neurons]
        parts.query.weight.data = parts.query.weight.data[channels]
        parts.out.weight.data = parts.out.weight.data[:, channels]
    torch.testing.assert_close(logits(changed, tokens), logits(model, tokens), rtol=1e-4, atol=1e-4)
    after = activation_importance(changed, tokens)
    for index in range(3):
        torch.testing.assert_close(
            after.neurons[index], before.neurons[index][neurons], rtol=1e-4, atol=1e-6
        )
        torch.testing.assert_close(
            after.heads[index], before.heads[index][heads], rtol=1e-4, atol=1e-6
        )
    torch.testing.assert_close(after.hidden, before.hidden, rtol=1e-4, atol=1e-6)


def test_permuted_channels_have_permuted_scores(make_model, tokens):
    model = make_model("llama", tie_word_embeddings=False)
    before = activation_importance(model, tokens)
    order = torch.randperm(32)
    wanted = logits(model, tokens)
    for name, parameter in model.named_parameters():
        dims = [dim for dim, size in enumerate(parameter.shape) if size == 32]
        reads = name.endswith(
            (
                "q_proj.weight",
                "k_proj.weight",
                "v_proj.weight",
                "gate_proj.weight",
                "up_proj.weight",
            )
        )
        dim = 1 if reads or "embed" in name or "lm_head" in name else dims[0]
        parameter.data = parameter.data.index_select(dim, order)
    torch.testing.assert_close(logits(model, tokens), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        activation_importance(model, tokens).hidden, before.hidden[order], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("block", "message"), [(1, "calibration activations of"), (2, "the residual stream holds")]
)
def test_infinite_activations_are_refused(make_model, tokens, block, message):
    model = make_model("llama")
    model.model.layers[block].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(UserError, match=f"{message} .*NaN or infinity; use a wider dtype"):
        activation_importance(model, tokens)


def test_other_architectures_are_refused(make_model, tokens):
    with pytest.raises(
        UserError, match="GPT2Block has no heads and neurons that can be told apart"
    ):
        activation_importance(make_model("gpt2"), tokens)

"""Backward passes over the whole model: against autograd, what is left behind, what is refused."""

import pytest
import torch
from tests.passes.families import GROUPS, LINEARS, Inputs, every_family, hooks

from prunebook.errors import UserError
from prunebook.methods.llm_surgeon.fisher import SecondMoment
from prunebook.models.anatomy import find_blocks
from prunebook.passes.backward import (
    TOKENS_PER_PASS,
    backpropagate,
    block_gradients,
    next_token_loss,
    windows_by_batch,
)


@every_family
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_gradients_are_those_of_the_summed_loss(make_model, tokens, family, batch_size):
    model = make_model(family)
    inputs, gradients = backpropagate(model, tokens, Inputs, batch_size=batch_size)
    stack, names = LINEARS[family]
    assert (
        sorted(gradients)
        == sorted(inputs)
        == sorted(f"{stack}.{i}.{name}" for i in range(3) for name in names)
    )
    for group in GROUPS[family]:
        assert len({id(inputs[f"{stack}.1.{name}"]) for name in group}) == 1
    # dL/dW = sum over tokens of g a^T, from autograd on the weights
    loss = torch.nn.functional.cross_entropy(
        model(input_ids=tokens, use_cache=False).logits[:, :-1].flatten(0, 1),
        tokens[:, 1:].flatten(),
        reduction="sum",
    )
    loss.backward()
    for block in find_blocks(model):
        for name, linear in block.linears.items():
            expected = linear.weight.grad.T if family == "gpt2" else linear.weight.grad
            g = gradients[name].all.flatten(0, 1)
            a = inputs[name].all.flatten(0, 1)
            torch.testing.assert_close(
                g.T @ a, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item()
            )


def test_nothing_is_left_after_gradients(make_model, tokens):
    model = make_model("llama")
    model.model.norm.weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    backpropagate(model, tokens, Inputs)
    assert hooks(model) == []
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())

    class Broken(Inputs):
        def update(self, inputs):
            raise RuntimeError("broken statistic")

    with pytest.raises(RuntimeError, match="broken statistic"):
        backpropagate(model, tokens, Broken)
    assert hooks(model) == []
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_fast_gradients_stay_close(make_model, tokens):
    model = make_model("llama")
    exact, fast = (backpropagate(model, tokens, Inputs, precision=p)[1] for p in ("exact", "fast"))
    for name, statistic in exact.items():
        error = (fast[name].all.float() - statistic.all).norm() / statistic.all.norm()
        assert 1e-5 < error < 0.2, name


def test_bad_tokens_and_gradients_are_named(make_model, tokens):
    with pytest.raises(
        UserError, match=r"windows of at least 2 tokens to predict one, not \[7, 1\]"
    ):
        backpropagate(make_model("llama"), tokens[:, :1], Inputs)
    model = make_model("llama")
    model.lm_head.weight.data[5] = float("inf")
    with pytest.raises(
        UserError, match=r"calibration gradients of model\.layers\.\d\..* hold NaN or infinity"
    ):
        backpropagate(model, tokens, SecondMoment)


def test_gradients_are_kept_of_the_blocks_or_of_all_and_none_stays(make_model, tokens):
    model = make_model("llama")
    model.model.norm.weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    inside = [parameter for block in model.model.layers for parameter in block.parameters()]
    for embeddings, expected in ((False, inside), (True, list(model.parameters()))):
        with block_gradients(model, embeddings) as parameters:
            assert len(parameters) == len(expected)
            assert all(a is b for a, b in zip(parameters, expected, strict=True))
            next_token_loss(model, tokens, "sum").backward()
            with_gradients = [p for p in model.parameters() if p.grad is not None]
            assert len(with_gradients) == len(expected)
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert all(parameter.grad is None for parameter in model.parameters())


def test_the_loss_by_hand(make_model, tokens):
    model = make_model("llama")
    with torch.no_grad():
        log_p = model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
        expected = -log_p.gather(-1, tokens[:, 1:, None])
        torch.testing.assert_close(next_token_loss(model, tokens), expected.mean())
        torch.testing.assert_close(next_token_loss(model, tokens, "sum"), expected.sum())


def test_batches_hold_so_many_windows_or_so_many_tokens(make_model, tokens, monkeypatch):
    model = make_model("llama")
    assert [len(batch) for batch in windows_by_batch(model, tokens, 3)] == [3, 3, 1]
    monkeypatch.setitem(TOKENS_PER_PASS, "cpu", 2 * tokens.shape[1] + 1)
    assert [len(batch) for batch in windows_by_batch(model, tokens)] == [2, 2, 2, 1]

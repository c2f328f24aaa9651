"""Hooks are called in order while their context is open, and never stay."""

import pytest
import torch
from torch import nn

from prunebook.passes.hooks import forward_hooks, forward_pre_hooks


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("broken forward")


def hooks_of(*modules):
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]


def test_hooks_are_called_in_their_order_and_change_what_passes():
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.eye(2)
    x = torch.tensor([1.0, 2.0])

    def double(_, inputs):
        return (2 * inputs[0],)

    def plus_one(_, inputs):
        return (inputs[0] + 1,)

    def minus(_, __, output):
        return -output

    with forward_pre_hooks([(linear, double), (linear, plus_one)]):
        assert linear(x).tolist() == [3, 5]
        with forward_hooks([(linear, minus)]):
            assert linear(x).tolist() == [-3, -5]
        assert linear(x).tolist() == [3, 5]
    assert linear(x).tolist() == [1, 2]
    assert hooks_of(linear) == [0]


def test_hooks_of_several_modules_see_inputs_and_outputs():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    seen = {}

    def record(module, inputs, output):
        seen[module] = (inputs[0].shape, output.shape)

    with forward_hooks((module, record) for module in model):
        model(torch.zeros(5, 3))
    assert seen == {model[0]: ((5, 3), (5, 2)), model[1]: ((5, 2), (5, 2))}


@pytest.mark.parametrize("context", [forward_hooks, forward_pre_hooks])
def test_hooks_are_removed_after_an_error(context):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with context((module, lambda *_: None) for module in model):
        assert hooks_of(*model) == [1, 1]
    with (
        pytest.raises(RuntimeError, match="broken inside"),
        context((module, lambda *_: None) for module in model),
    ):
        raise RuntimeError("broken inside")
    assert hooks_of(*model) == [0, 0]


@pytest.mark.parametrize("context", [forward_hooks, forward_pre_hooks])
def test_hooks_are_removed_if_one_of_them_cannot_be_registered(context):
    linear = nn.Linear(2, 2)
    with pytest.raises(AttributeError), context([(linear, print), (None, print)]):
        pass
    assert hooks_of(linear) == [0]


def test_hooks_that_are_always_called_see_a_forward_that_fails():
    for always_call, expected in ((False, []), (True, ["called"])):
        model = Failing()
        calls = []
        hooks = [(model, lambda *_, calls=calls: calls.append("called"))]
        with (
            pytest.raises(RuntimeError, match="broken forward"),
            forward_hooks(hooks, always_call=always_call),
        ):
            model(torch.zeros(1))
        assert calls == expected
        assert hooks_of(model) == [0]


def test_hooks_that_were_there_stay():
    linear = nn.Linear(2, 2)
    calls = []
    linear.register_forward_hook(lambda *_: calls.append("own"))
    with forward_hooks([(linear, lambda *_: calls.append("ours"))]):
        linear(torch.zeros(2))
    linear(torch.zeros(2))
    assert calls == ["own", "ours", "own"]

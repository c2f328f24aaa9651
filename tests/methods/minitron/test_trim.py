"""Trimming by given scores: what stays of each axis, and what is left alone."""

import copy

import torch

from prunebook.methods.minitron.activations import Importance
from prunebook.methods.minitron.trim import trim
from prunebook.models.anatomy import all_sublayers


def test_the_best_of_each_axis_stay(make_model):
    model = make_model("llama")
    before = copy.deepcopy(model)
    heads = torch.tensor([1.0, 2.0, 9.0, 8.0])
    neurons = torch.arange(48.0)
    importance = Importance([heads] * 3, [neurons] * 3, torch.arange(32.0), torch.zeros(3))
    sizes = {"heads": 2, "neurons": 10, "hidden": 24, "blocks": 2}
    trim(model, sizes, importance, torch.tensor([3.0, 1.0, 2.0]))
    left = all_sublayers(model)
    whole = all_sublayers(before)
    assert len(left) == 2
    for new, old in zip(left, [whole[0], whole[2]], strict=True):
        # the better of the two heads of each key-value head, though the last two score highest
        rows = torch.cat([torch.arange(8, 16), torch.arange(16, 24)])
        assert torch.equal(new.query.weight, old.query.weight[rows][:, 8:])
        assert torch.equal(new.last.weight, old.last.weight[8:, 38:])


def test_axes_without_a_size_are_left_alone(make_model):
    model = make_model("llama")
    scores = [torch.zeros(4)] * 3, [torch.arange(48.0)] * 3
    trim(
        model, {"neurons": 5}, Importance(*scores, torch.zeros(32), torch.zeros(3)), torch.zeros(3)
    )
    assert [(parts.heads, parts.neurons) for parts in all_sublayers(model)] == [(4, 5)] * 3
    assert model.config.hidden_size == 32

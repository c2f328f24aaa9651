"""The refit: what a sublayer lacks, and the least squares that give it."""

import copy

import pytest
import torch

from prunebook.errors import UserError
from prunebook.methods.k_prune.refit import examples, refit
from prunebook.models.anatomy import find_stack, sublayers
from prunebook.passes.sequential import walk


def parts_of(model):
    return [sublayers(block) for block in find_stack(model)[1]]


def step_pairs(model, teacher, tokens):
    return zip(walk(model, tokens), walk(teacher, tokens), strict=True)


@pytest.mark.parametrize("kind", ["bert", "llama", "qwen3", "opt"])
def test_nothing_lacks_where_nothing_was_cut(make_model, make_classifier, tokens, kind):
    model = make_classifier() if kind == "bert" else make_model(kind)
    teacher = copy.deepcopy(model)
    for step, whole in step_pairs(model, teacher, tokens):
        for of_mlp in (False, True):
            for _, lacking in examples(step, whole, of_mlp):
                assert lacking.abs().max() < 1e-5


@torch.no_grad()
def into_the_last_norm(step):
    seen = []
    handle = step.module.output.LayerNorm.register_forward_pre_hook(
        lambda _, i: seen.append(i[0].flatten(0, 1))
    )
    step.module(step.hidden)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("kind", ["bert", "llama", "opt"])
def test_what_lacks_is_the_difference_of_the_sums(make_model, make_classifier, tokens, kind):
    """Independently: what flows into the norm after a sublayer (BERT), or along the stream
    (others)."""
    teacher = make_classifier() if kind == "bert" else make_model(kind)
    model = copy.deepcopy(teacher)
    for parts in parts_of(model):
        parts.out.weight.data *= 0.5
        parts.last.weight.data *= 0.5
    last = len(find_stack(model)[1]) - 1
    for step, whole in step_pairs(model, teacher, tokens):
        found = torch.cat([lacking for _, lacking in examples(step, whole, True)])
        if kind == "bert":
            expected = into_the_last_norm(whole) - into_the_last_norm(step)
        else:
            runs = [
                torch.cat([each.run(batch) for batch in each.hidden.split(each.batch_size)])
                for each in (whole, step)
            ]
            expected = (runs[0] - runs[1]).flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert step.index == last


def test_a_refit_repairs_a_lost_twin_and_never_fits_worse():
    torch.manual_seed(0)
    a = torch.randn(200, 6)
    old = torch.nn.Linear(6, 4)
    a[:, 5] = a[:, 2]  # twins
    target = old(a).detach()
    small = torch.nn.Linear(5, 4)
    small.weight.data, small.bias.data = old.weight.data[:, :5].clone(), old.bias.data.clone()
    lacking = target - small(a[:, :5]).detach()
    before = lacking.square().sum()
    with torch.no_grad():
        refit(small, [(a[:70, :5], lacking[:70]), (a[70:, :5], lacking[70:])], 1e-9)
    assert before > 1
    torch.testing.assert_close(small(a[:, :5]), target, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        small.weight[:, 2], old.weight[:, 2] + old.weight[:, 5], rtol=1e-4, atol=1e-4
    )


def test_a_refit_is_the_least_squares_solution():
    torch.manual_seed(1)
    a = torch.randn(50, 6)
    wanted = torch.randn(50, 3)
    linear = torch.nn.Linear(6, 3)
    lacking = wanted - linear(a).detach()
    with torch.no_grad():
        refit(linear, [(a, lacking)], 1e-12)
    best = torch.linalg.lstsq(a, wanted - linear.bias.detach()).solution.T
    torch.testing.assert_close(linear.weight.detach(), best, rtol=1e-4, atol=1e-4)


def test_one_massive_token_does_not_break_the_refit():
    torch.manual_seed(2)
    a = torch.randn(200, 12, dtype=torch.float64)
    linear = torch.nn.Linear(12, 3)
    a[7] *= 1e6  # float32 products would lose the rest behind it
    old = torch.nn.Linear(12, 3)
    a = a.float()
    lacking = (a.double() @ (old.weight - linear.weight).double().T).float().detach()
    with torch.no_grad():
        refit(linear, [(a, lacking)], 0.0)
    torch.testing.assert_close(linear.weight, old.weight, rtol=1e-3, atol=1e-4)


def test_dependent_inputs_without_damping_are_refused_in_one_line():
    a = torch.ones(50, 3)
    with pytest.raises(
        UserError,
        match="3 inputs of a sublayer to refit depend on each other, which damping 0 is too",
    ):
        refit(torch.nn.Linear(3, 2), [(a, a[:, :2])], 0.0)


def test_silent_units_keep_their_weights():
    linear = torch.nn.Linear(3, 2)
    before = linear.weight.detach().clone()
    with torch.no_grad():
        refit(linear, [(torch.zeros(10, 3), torch.randn(10, 2))], 1e-6)
    assert torch.equal(linear.weight, before)

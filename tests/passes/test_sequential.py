"""The walk over decoder blocks: what reaches each block, what is gathered, what is left behind."""

import pytest
import torch
from tests.passes.families import GATED, GROUPS, LIKE_LLAMA, LINEARS, Inputs, every_family, hooks
from tests.whole_models import inputs_of_linears
from torch import nn

from prunebook.errors import UserError
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.passes.sequential import walk
from prunebook.passes.statistics import Hessian, InputNorm


def true_inputs(model, tokens):
    """`[block] -> [n, length, width]`, what reaches each block in an ordinary forward pass."""
    seen = [[] for _ in find_blocks(model)]
    handles = [
        block.module.register_forward_pre_hook(
            lambda _, inputs, at=block.index: seen[at].append(inputs[0])
        )
        for block in find_blocks(model)
    ]
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    return [torch.cat(batches) for batches in seen]


def walked_inputs(model, tokens, **options):
    return [step.hidden.clone() for step in walk(model, tokens, **options)]


@every_family
def test_dense_blocks_receive_their_true_inputs(make_model, tokens, family):
    model = make_model(family)
    expected = true_inputs(model, tokens)
    for batch_size in (None, 3, 7):  # 3 leaves a remainder of one window
        for got, want in zip(
            walked_inputs(model, tokens, batch_size=batch_size), expected, strict=True
        ):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@every_family
def test_pruned_blocks_feed_the_next_ones(make_model, tokens, family):
    model = make_model(family)
    by_hand = make_model(family)
    dense = true_inputs(model, tokens)

    def prune(block):
        for linear in block.linears.values():
            weight_of(linear)[:, ::2] = 0

    prune(find_blocks(by_hand)[0])
    expected = true_inputs(by_hand, tokens)
    got = []
    for step in walk(model, tokens, batch_size=2):
        got.append(step.hidden.clone())
        if step.index == 0:
            prune(step)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (got[1] - dense[1]).abs().max() > 0.1


@every_family
def test_linears_of_one_input_share_one_statistic(make_model, tokens, family):
    stack, _ = LINEARS[family]
    for step in walk(make_model(family), tokens, batch_size=3):
        statistics = step.collect(Inputs)
        expected = [[f"{stack}.{step.index}.{name}" for name in group] for group in GROUPS[family]]
        assert [sorted(group) for group in step.groups] == [sorted(group) for group in expected]
        for group in step.groups:
            assert len({id(statistics[name]) for name in group}) == 1
        assert len({id(statistic) for statistic in statistics.values()}) == len(expected)
        assert sorted(statistics) == sorted(step.linears)


@every_family
def test_statistics_see_the_input_of_their_linear(make_model, tokens, family):
    model = make_model(family)
    seen = inputs_of_linears(model, tokens)
    for step in walk(model, tokens, batch_size=3):
        for name, statistic in step.collect(Inputs).items():
            width = weight_of(step.linears[name]).shape[1]
            assert statistic.width == width
            torch.testing.assert_close(
                statistic.all.reshape(-1, width),
                seen[name].reshape(-1, width),
                rtol=1e-4,
                atol=1e-4,
            )


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@pytest.mark.parametrize("factory", [InputNorm, Hessian])
def test_the_batch_size_does_not_change_statistics(make_model, tokens, family, factory):
    def gather(batch_size):
        gathered = {}
        for step in walk(make_model(family), tokens, batch_size=batch_size):
            gathered |= step.collect(factory)
        return {n: s.norm() if factory is InputNorm else s.matrix() for n, s in gathered.items()}

    whole = gather(7)
    for batch_size in (1, 3):
        for name, value in gather(batch_size).items():
            torch.testing.assert_close(
                value, whole[name], rtol=1e-4, atol=1e-4 * whole[name].abs().max().item()
            )


def test_the_last_linear_runs_for_the_first_batch_only(make_model, tokens):
    model = make_model("llama")
    runs = dict.fromkeys(("up_proj", "down_proj"), 0)

    def count(name):
        def hook(*_):
            runs[name] += 1

        return hook

    for name in runs:
        getattr(model.model.layers[1].mlp, name).register_forward_hook(count(name))
    for step in walk(model, tokens, batch_size=2):
        if step.index == 1:
            step.collect(InputNorm)
            assert runs == {"up_proj": 4, "down_proj": 1}
    assert runs == {"up_proj": 8, "down_proj": 5}


def test_nothing_is_left_in_the_model(make_model, tokens):
    model = make_model("llama")
    modules = list(model.modules())
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in walk(model, tokens, batch_size=3):
        step.collect(Hessian)
    assert hooks(model) == []
    assert all(now is before for now, before in zip(model.modules(), modules, strict=True))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_hooks_are_removed_after_an_error(make_model, tokens):
    class Broken(Inputs):
        def update(self, inputs):
            raise RuntimeError("broken statistic")

    model = make_model("llama")
    step = next(iter(walk(model, tokens)))
    with pytest.raises(RuntimeError, match="broken statistic"):
        step.collect(Broken)
    assert hooks(model) == []


def test_blocks_are_restored_after_an_error_in_the_capture(make_model, tokens):
    model = make_model("llama")
    layers = list(model.model.layers)

    def fail(*_):
        raise RuntimeError("broken norm")

    handle = model.model.norm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken norm"):
        next(iter(walk(model, tokens)))
    handle.remove()
    assert all(now is before for now, before in zip(model.model.layers, layers, strict=True))


def test_activations_that_are_not_finite_name_the_linear(make_model, tokens):
    model = make_model("llama")
    model.model.layers[1].self_attn.v_proj.weight.data[0, 0] = float("nan")
    steps = walk(model, tokens)
    next(steps).collect(InputNorm)
    second = next(steps)
    with pytest.raises(
        UserError, match=r"activations of model\.layers\.1\.self_attn\.o_proj hold NaN"
    ):
        second.collect(InputNorm)
    assert hooks(model) == []


def test_fast_precision_stays_close_and_keeps_the_residual_stream_in_float32(make_model, tokens):
    model = make_model("llama")
    exact = walked_inputs(model, tokens)
    fast = walked_inputs(model, tokens, precision="fast")
    assert fast[2].dtype == torch.float32
    assert torch.equal(exact[0], fast[0])
    error = (exact[2] - fast[2]).norm() / exact[2].norm()
    assert 1e-5 < error < 0.05
    with pytest.raises(UserError, match="precision 'slow' is unknown"):
        next(iter(walk(model, tokens, precision="slow"))).collect(Inputs)


def test_fast_statistics_are_gathered_in_float32(make_model, tokens):
    step = next(iter(walk(make_model("llama"), tokens, precision="fast")))
    hessians = step.collect(Hessian)
    inputs = step.collect(Inputs)
    name = "model.layers.0.self_attn.q_proj"
    x = inputs[name].all.double().reshape(-1, 32)
    torch.testing.assert_close(
        hessians[name].matrix().double(), 2 / 7 * x.T @ x, rtol=1e-5, atol=1e-4
    )


@every_family
def test_a_block_runs_with_other_weights_and_gives_them_gradients(make_model, tokens, family):
    model = make_model(family)
    for step in walk(model, tokens, batch_size=3):
        batch = step.hidden[2:3]
        before = step.hidden.clone()
        dense = {name: weight_of(linear).clone() for name, linear in step.linears.items()}
        halved = {name: (weight / 2).requires_grad_() for name, weight in dense.items()}
        with torch.enable_grad():
            output = step.run(batch, halved)
            gradients = torch.autograd.grad(output.square().sum(), list(halved.values()))
        assert all(
            torch.equal(weight_of(step.linears[name]), weight) for name, weight in dense.items()
        )
        assert torch.equal(step.hidden, before)
        for linear in step.linears.values():
            linear.weight.data /= 2
            linear.weight.grad = None
        with torch.enable_grad():
            expected = step.module(batch, *step.arguments[1][0], **step.arguments[1][1])
            expected = expected[0] if isinstance(expected, tuple) else expected
            expected.square().sum().backward()
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(step.run(batch), output.detach())
        for gradient, (name, linear) in zip(gradients, step.linears.items(), strict=True):
            want = linear.weight.grad.T if family == "gpt2" else linear.weight.grad
            torch.testing.assert_close(gradient, want, rtol=1e-3, atol=1e-3, msg=name)


@every_family
def test_outputs_of_the_pass_that_collects_can_go_elsewhere(make_model, tokens, family):
    expected = walked_inputs(make_model(family), tokens, batch_size=3)
    found = []
    for step in walk(make_model(family), tokens, batch_size=3):
        assert torch.equal(step.hidden, expected[step.index])
        found.append(torch.empty_like(step.hidden))
        inputs = step.collect(Inputs, outputs=found[-1])
        assert torch.equal(step.hidden, expected[step.index])
        assert all(len(of_linear.all) == len(tokens) for of_linear in inputs.values())
    assert all(torch.equal(got, want) for got, want in zip(found, expected[1:], strict=False))


@every_family
@torch.no_grad()
def test_fast_passes_stay_near_exact_and_leave_the_block_as_it_was(make_model, tokens, family):
    """Each block's outputs from the same inputs: 3 % of their norm is some eight roundings to
    bfloat16."""
    model = make_model(family)
    parameters = dict(model.named_parameters())
    weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    exact_steps = walk(make_model(family), tokens, batch_size=3)
    for step, exact_step in zip(
        walk(model, tokens, batch_size=3, precision="fast"), exact_steps, strict=True
    ):
        step.hidden.copy_(exact_step.hidden)
        found = torch.empty_like(step.hidden)
        expected = torch.empty_like(step.hidden)
        step.collect(InputNorm, outputs=found)
        exact_step.collect(InputNorm, outputs=expected)
        step.propagate()
        assert torch.equal(step.hidden, found)  # either pass computes the same
        error = (found - expected).norm() / expected.norm()
        assert 1e-5 < error < 0.03
    assert hooks(model) == []
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
        assert parameter.dtype is torch.float32
        assert torch.equal(parameter, weights[name])


@every_family
@torch.no_grad()
def test_fast_passes_see_weights_that_changed_since_the_last_pass(make_model, tokens, family):
    step = next(iter(walk(make_model(family), tokens, precision="fast")))
    before = torch.empty_like(step.hidden)
    step.collect(InputNorm, outputs=before)
    for linear in step.linears.values():
        weight_of(linear).zero_()  # `.data` counts no version
    after = torch.empty_like(step.hidden)
    step.collect(InputNorm, outputs=after)
    assert (after - before).norm() > 0.1 * before.norm()
    if family in LIKE_LLAMA:
        assert torch.equal(after, step.hidden)  # only the residual stream is left


def test_an_error_in_a_fast_pass_leaves_the_block_as_it_was(make_model, tokens):
    class Broken(Inputs):
        def update(self, inputs):
            raise RuntimeError("broken statistic")

    model = make_model("llama")
    parameters = list(model.parameters())
    step = next(iter(walk(model, tokens, precision="fast")))
    with pytest.raises(RuntimeError, match="broken statistic"):
        step.collect(Broken)
    assert hooks(model) == []
    assert all(now is before for now, before in zip(model.parameters(), parameters, strict=True))
    assert all(parameter.dtype is torch.float32 for parameter in model.parameters())


def test_only_float32_weights_of_plain_linears_are_cast_ahead(make_model, tokens):
    class Doubled(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, 2 * self.weight)

    model = make_model("llama")
    mlp = model.model.layers[0].mlp
    mlp.up_proj.__class__ = Doubled
    mlp.down_proj.weight.data = mlp.down_proj.weight.data.bfloat16()
    for precision, expected in ("exact", set()), ("fast", set(GATED[:5])):
        step = next(iter(walk(model, tokens[:1], precision=precision)))
        cast = step._cast_weights()
        assert set(cast) == {f"model.layers.0.{name}" for name in expected}
        assert all(
            torch.equal(w, weight_of(step.linears[name]).bfloat16()) for name, w in cast.items()
        )

"""The walk over decoder blocks: what is found, what reaches each block, what is left behind."""

import pytest
import torch
import transformers
from torch import nn

from prunebook.data.windows import check_tokens
from prunebook.errors import UserError
from prunebook.methods.llm_surgeon.fisher import SecondMoment
from prunebook.models.anatomy import find_blocks, weight_of
from prunebook.passes.backward import backpropagate
from prunebook.passes.precision import matmul_precision
from prunebook.passes.sequential import walk
from prunebook.passes.statistics import Hessian, InputNorm

LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3")
FAMILIES = (*LIKE_LLAMA, "opt", "gpt2")
GATED = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]
LINEARS = {
    **{name: ("model.layers", GATED) for name in LIKE_LLAMA},
    "opt": (
        "model.decoder.layers",
        [
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.q_proj",
            "self_attn.out_proj",
            "fc1",
            "fc2",
        ],
    ),
    "gpt2": ("transformer.h", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
}
GROUPS = {
    **{name: [GATED[:3], GATED[3:4], GATED[4:6], GATED[6:]] for name in LIKE_LLAMA},
    "opt": [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["self_attn.out_proj"],
        ["fc1"],
        ["fc2"],
    ],
    "gpt2": [["attn.c_attn"], ["attn.c_proj"], ["mlp.c_fc"], ["mlp.c_proj"]],
}
every_family = pytest.mark.parametrize("family", FAMILIES)


class Inputs:
    """A statistic that keeps what it sees."""

    def __init__(self, width, device):
        self.width = width
        self.seen = []

    def update(self, inputs):
        self.seen.append(inputs.clone())

    def is_finite(self):
        return True

    @property
    def all(self):
        return torch.cat(self.seen)


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


def hooks(model):
    return [name for name, m in model.named_modules() if m._forward_pre_hooks or m._forward_hooks]


@every_family
def test_blocks_and_their_linears_are_found(make_model, family):
    model = make_model(family)
    stack, names = LINEARS[family]
    blocks = find_blocks(model)
    assert [block.index for block in blocks] == [0, 1, 2]
    for block in blocks:
        assert sorted(block.linears) == sorted(f"{stack}.{block.index}.{name}" for name in names)
        for name, linear in block.linears.items():
            assert model.get_submodule(name) is linear
        assert block.module is model.get_submodule(f"{stack}.{block.index}")


@pytest.mark.parametrize("model", [nn.Linear(3, 3), nn.ModuleList([nn.Linear(2, 2)])])
def test_a_model_without_blocks_is_refused(model):
    with pytest.raises(UserError, match="has no recognisable decoder blocks"):
        find_blocks(model)


def test_a_stack_of_another_length_is_no_stack_of_blocks(make_model):
    model = make_model("llama")
    model.config.num_hidden_layers = 4
    with pytest.raises(UserError, match="num_hidden_layers=4"):
        find_blocks(model)


def test_weight_of_is_out_by_in_and_written_in_place(make_model):
    linear = find_blocks(make_model("gpt2"))[0].linears["transformer.h.0.mlp.c_fc"]
    weight = weight_of(linear)
    assert weight.shape == (128, 32)
    weight[5, 7] = 42
    assert linear.weight[7, 5].item() == 42
    llama = find_blocks(make_model("llama"))[0].linears["model.layers.0.mlp.up_proj"]
    weight_of(llama)[1, 2] = 42
    assert llama.weight[1, 2].item() == 42


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
    seen = {}
    handles = [
        linear.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.__setitem__(name, inputs[0])
        )
        for block in find_blocks(model)
        for name, linear in block.linears.items()
    ]
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    for handle in handles:
        handle.remove()
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


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.full((2, 4), 100), "token id 100, outside the vocabulary 0..99"),
        (torch.full((2, 4), -1), "token id -1, outside the vocabulary"),
        (torch.zeros(2, 4), r"int64 tensor \[n, length\], not empty, not torch.float32 \[2, 4\]"),
        (torch.zeros(4, dtype=torch.int64), r"not torch.int64 \[4\]"),
        (torch.zeros(0, 4, dtype=torch.int64), r"not torch.int64 \[0, 4\]"),
        ([[1, 2]], "not list"),
    ],
)
def test_bad_tokens_are_refused(make_model, tokens, message):
    with pytest.raises(UserError, match=message):
        next(iter(walk(make_model("llama"), tokens)))


def test_tokens_without_length_are_refused(make_model):
    with pytest.raises(UserError, match="int64 tensor"):
        check_tokens(make_model("llama"), torch.zeros(2, 0, dtype=torch.int64))


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


def test_fused_experts_are_refused_and_not_left_dense():
    config = transformers.MixtralConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    with pytest.raises(
        UserError, match=r"model\.layers\.0\.mlp\.experts\.\w+ \[4, \d+, \d+\] holds the experts"
    ):
        find_blocks(transformers.AutoModelForCausalLM.from_config(config))


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


@pytest.mark.parametrize("frozen", [(), (1,), (1, 2), (0,), (0, 2)])
def test_linears_have_the_gradients_of_ordinary_ones(frozen):
    x = torch.randn(2, 5, 7)
    weight = torch.randn(3, 7)
    bias = torch.randn(3)
    for i, tensor in enumerate((x, weight, bias)):
        tensor.requires_grad_(i not in frozen)
    for arguments in ((x, weight), (x, weight, bias)):
        wanted = [tensor for tensor in arguments if tensor.requires_grad]
        expected = torch.nn.functional.linear(*arguments)
        want = torch.autograd.grad(expected.square().sum(), wanted)
        with matmul_precision(x.device, "exact"):
            output = torch.nn.functional.linear(*arguments)
        got = torch.autograd.grad(output.square().sum(), wanted)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(got, want)


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

"""The quantisers by hand, gradients, packed layers equal to trained ones, and what a model
becomes."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.pytorch_utils import Conv1D

from prunebook.errors import UserError
from prunebook.measure.zeros import count_zeros
from prunebook.models.anatomy import find_blocks
from prunebook.models.config import TERNARY
from prunebook.models.ternary import (
    BitLinear,
    PackedBitLinear,
    absmax_int8,
    absmean_ternary,
    pack,
    rebuild,
    replace_linears,
)
from prunebook.passes.precision import matmul_precision

NORMS = (None, 1e-5)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(columns=30, rows=7, bias=True, norm_eps=1e-5, seed=0):
    made = BitLinear(columns, rows, bias, norm_eps)
    made.weight.data = draw(rows, columns, seed=seed)
    if bias:
        made.bias.data = draw(rows, seed=seed + 1)
    return made


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits


def test_weights_are_rounded_by_their_mean_magnitude():
    """Mean 1: halves go to the even neighbour, which is 0; 3 is clipped."""
    weight = torch.tensor([[0.5, -0.5, 1.5, -1.5], [0.25, -0.75, 3.0, 0.0]])
    codes, gamma = absmean_ternary(weight)
    assert gamma.item() == 1.0
    assert codes.tolist() == [[0, 0, 1, -1], [0, -1, 1, 0]]


def test_activations_are_rounded_by_the_largest_of_each_token():
    """127 / 2.54 = 50 codes a unit, 127 / 127 = 1; 2.5 goes to the even 2."""
    codes, s = absmax_int8(torch.tensor([[2.54, -1.0, 0.013], [127.0, 2.5, -127.0]]))
    torch.testing.assert_close(s, torch.tensor([[50.0], [1.0]]))
    assert codes.tolist() == [[127, -50, 1], [127, 2, -127]]


@pytest.mark.parametrize(("quantise", "of_zero"), [(absmean_ternary, 1e-5), (absmax_int8, 127e5)])
def test_zeros_stay_zero_and_scales_finite(quantise, of_zero):
    codes, scale = quantise(torch.zeros(2, 5))
    assert (codes == 0).all()
    torch.testing.assert_close(scale, torch.full_like(scale, of_zero))


def test_gaussian_weights_lose_31_percent():
    """|w| < gamma / 2 with gamma = sqrt(2 / pi): 2 Phi(0.399) - 1 = 0.310."""
    share = (absmean_ternary(draw(1000, 1000))[0] == 0).float().mean().item()
    assert share == pytest.approx(0.3101, abs=2e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_codes_do_not_depend_on_the_size_of_weights(rows, columns, seed, factor):
    weight = draw(rows, columns, seed=seed)
    codes, gamma = absmean_ternary(weight)
    again, other = absmean_ternary(codes * gamma)
    assert set(codes.unique().tolist()) <= {-1, 0, 1}
    # a second time nothing changes but the scale, which
    assert torch.equal(again, codes) or not codes.any()
    # lost the share of zeros
    torch.testing.assert_close(other, gamma * codes.abs().mean().clamp(min=1e-5 / gamma))
    ratio = weight / gamma
    clear = ((ratio.abs() - 0.5).abs() > 1e-4).all()  # no weight within rounding of a threshold
    assert not clear or torch.equal(absmean_ternary(weight * factor)[0], codes)


def test_narrow_weights_have_a_mean_in_float32():
    weight = draw(64, 64).to(torch.bfloat16)
    assert absmean_ternary(weight)[1] == absmean_ternary(weight.float())[1]
    assert absmean_ternary(weight)[0].dtype == torch.float32


@pytest.mark.parametrize("norm_eps", NORMS)
def test_the_forward_pass_is_norm_then_codes_then_product(norm_eps):
    made = layer(norm_eps=norm_eps)
    x = draw(2, 5, 30, seed=3) * 3
    read = x if norm_eps is None else x / (x.square().mean(-1, keepdim=True) + norm_eps).sqrt()
    s = 127 / read.abs().amax(-1, keepdim=True)
    gamma = made.weight.abs().mean()
    expected = ((read * s).round() / s) @ (
        gamma * (made.weight / gamma).round().clamp(-1, 1)
    ).T + made.bias
    torch.testing.assert_close(made(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm_eps", NORMS)
@pytest.mark.parametrize("one_dnn", [False, True])
def test_gradients_are_the_dense_ones_at_the_quantised_operands(norm_eps, one_dnn):
    """Beside the detach trick in plain torch: identity through rounding and clipping, scales
    constant."""
    made = layer(norm_eps=norm_eps)
    x = draw(4, 30, seed=5).requires_grad_()
    given_back = draw(4, 7, seed=6)
    with matmul_precision(x.device, "exact") if one_dnn else torch.enable_grad():
        found = torch.autograd.grad(made(x), [x, made.weight, made.bias], given_back)

    read = x if norm_eps is None else x / (x.square().mean(-1, keepdim=True) + norm_eps).sqrt()
    with torch.no_grad():
        s = 127 / read.abs().amax(-1, keepdim=True)
        gamma = made.weight.abs().mean()
        x_hat = (read * s).round() / s
        w_hat = gamma * (made.weight / gamma).round().clamp(-1, 1)
        clipped = (made.weight.abs() > 1.5 * gamma).any()
    assert clipped
    y = F.linear(
        read + (x_hat - read).detach(), made.weight + (w_hat - made.weight).detach(), made.bias
    )
    expected = torch.autograd.grad(y, [x, made.weight, made.bias], given_back)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], given_back.T @ x_hat, rtol=1e-4, atol=1e-4)


def test_fast_passes_are_near():
    made = layer()
    x = draw(4, 30, seed=5)
    with matmul_precision(x.device, "fast"):
        near = made(x)
    assert near.dtype == torch.float32
    assert not torch.equal(near, made(x))
    torch.testing.assert_close(near, made(x), rtol=2e-2, atol=2e-2)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from(NORMS),
    st.integers(0, 10**6),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_packed_is_equal_bit_by_bit(columns, rows, bias, norm_eps, seed, dtype):
    made = layer(columns, rows, bias, norm_eps, seed).to(dtype)
    x = draw(2, 3, columns, seed=seed).to(dtype)
    packed = made.to_packed()
    with torch.no_grad():
        assert torch.equal(packed(x), made(x))
    assert packed(x).dtype == dtype


def test_packed_weights_take_two_bits():
    packed = layer(columns=64, rows=32, bias=False).to_packed()
    size = {
        name: tensor.numel() * tensor.element_size() for name, tensor in packed.state_dict().items()
    }
    assert size == {"packed": 32 * 64 * 2 // 8, "scale": 4}
    assert not list(packed.parameters())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "opt", "gpt2"])
def test_every_linear_of_the_blocks_is_replaced_and_nothing_else(make_model, tokens, family):
    model = make_model(family)
    before = copy.deepcopy(model)
    count = len(count_zeros(model))
    replace_linears(model, norm=False)
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, BitLinear)
    }
    assert set(layers) == {name for block in find_blocks(model) for name in block.linears}
    assert len(layers) == count
    assert not any(isinstance(module, Conv1D) for module in model.modules())
    for name, old in before.named_parameters():
        new = model.get_parameter(name)
        assert torch.equal(
            new, old if new.shape == old.shape and torch.equal(new, old) else old.T
        ), name
    assert all(layer.norm_eps is None and not layer.training for layer in layers.values())
    assert not torch.equal(logits(model, tokens), logits(before, tokens))
    zeros = {
        name: int((absmean_ternary(layer.weight)[0] == 0).sum()) for name, layer in layers.items()
    }
    assert {name: count for name, (count, _) in count_zeros(model).items()} == zeros
    assert 0.2 < sum(zeros.values()) / sum(size for _, size in count_zeros(model).values()) < 0.4


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_norms_that_go_leave_their_gains_in_the_weights(make_model, tokens, monkeypatch, family):
    """Without rounding, and with the norms of `o_proj` and `down_proj` off, the model is what it
    was."""
    model = make_model(family)
    for block in model.model.layers:
        block.input_layernorm.weight.data = draw(32, seed=1).abs() + 0.5
        block.post_attention_layernorm.weight.data = draw(32, seed=2).abs() + 0.5
    expected = logits(model, tokens)
    replace_linears(model, norm=True)
    for block in model.model.layers:
        assert isinstance(block.input_layernorm, torch.nn.Identity)
        block.self_attn.o_proj.norm_eps = block.mlp.down_proj.norm_eps = None
    monkeypatch.setattr("prunebook.models.ternary.absmax_int8", lambda x: (x, torch.ones(())))
    monkeypatch.setattr("prunebook.models.ternary.absmean_ternary", lambda w: (w, torch.ones(())))
    torch.testing.assert_close(logits(model, tokens), expected, rtol=1e-3, atol=1e-3)


def test_a_packed_model_gives_equal_logits(make_model, tokens):
    model = make_model("llama")
    replace_linears(model, norm=True)
    small = copy.deepcopy(model)
    pack(small)
    assert torch.equal(logits(small, tokens), logits(model, tokens))
    assert sum(isinstance(module, PackedBitLinear) for module in small.modules()) == 21
    assert getattr(small.config, TERNARY) == {"norm": True, "packed": True}
    assert getattr(model.config, TERNARY) == {"norm": True, "packed": False}
    prompt = tokens[:2, :5]
    written = [
        one.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)
        for one in (small, model)
    ]
    assert torch.equal(*written)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            "opt",
            "not possible for OPTDecoderLayer, whose norms are self_attn_layer_norm, "
            "final_layer_norm; use norm",
        ),
        (
            "gpt2",
            "norm=True is not possible for GPT2Block, whose norms are ln_1, ln_2; use norm=False",
        ),
    ],
)
def test_norms_of_another_kind_are_refused_before_anything_changes(make_model, family, message):
    model = make_model(family)
    before = str(model)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        replace_linears(model, norm=True)
    assert "\n" not in str(caught.value)
    assert str(model) == before


def test_what_is_ternary_or_is_not_is_told(make_model):
    model = make_model("llama")
    with pytest.raises(
        UserError, match="LlamaForCausalLM has no ternary layers to pack; prune it with bitnet-b158"
    ):
        pack(model)
    replace_linears(model, norm=False)
    with pytest.raises(
        UserError, match="LlamaForCausalLM has ternary layers already; load the model again"
    ):
        replace_linears(model, norm=False)
    setattr(model.config, TERNARY, {"norm": False})
    with pytest.raises(
        ValueError, match=r"prunebook_ternary in config\.json must hold norm and packed"
    ):
        rebuild(model)

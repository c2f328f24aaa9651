"""The quantisers by hand, gradients, and packed layers equal to trained ones."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.random_tensors import normal

from prunebook.models.ternary_linears import (
    BitLinear,
    absmax_int8,
    absmean_ternary,
    rms_normed,
)
from prunebook.passes.precision import matmul_precision

NORMS = (None, 1e-5)


def layer(columns=30, rows=7, bias=True, norm_eps=1e-5, seed=0):
    made = BitLinear(columns, rows, bias, norm_eps)
    made.weight.data = normal(rows, columns, seed=seed)
    if bias:
        made.bias.data = normal(rows, seed=seed + 1)
    return made


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
    share = (absmean_ternary(normal(1000, 1000))[0] == 0).float().mean().item()
    assert share == pytest.approx(0.3101, abs=2e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_codes_do_not_depend_on_the_size_of_weights(rows, columns, seed, factor):
    weight = normal(rows, columns, seed=seed)
    codes, gamma = absmean_ternary(weight)
    again, other = absmean_ternary(codes * gamma)
    assert set(codes.unique().tolist()) <= {-1, 0, 1}
    # A second rounding leaves the codes as they are; only the scale changes,
    assert torch.equal(again, codes) or not codes.any()
    # by the share of weights that are not zero.
    torch.testing.assert_close(other, gamma * codes.abs().mean().clamp(min=1e-5 / gamma))
    ratio = weight / gamma
    clear = ((ratio.abs() - 0.5).abs() > 1e-4).all()  # no weight within rounding of a threshold
    assert not clear or torch.equal(absmean_ternary(weight * factor)[0], codes)


def test_narrow_weights_have_a_mean_in_float32():
    weight = normal(64, 64).to(torch.bfloat16)
    assert absmean_ternary(weight)[1] == absmean_ternary(weight.float())[1]
    assert absmean_ternary(weight)[0].dtype == torch.float32


def test_each_token_is_divided_by_its_root_mean_square():
    """The mean square of (3, 4) is 12.5; an epsilon of 3.5 makes it 16, whose root is 4."""
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert rms_normed(x, 3.5).tolist() == [[0.75, 1.0], [0.0, 0.0]]
    assert rms_normed(x.bfloat16(), 3.5).dtype == torch.float32
    assert rms_normed(x, None) is x


@pytest.mark.parametrize("norm_eps", NORMS)
def test_the_forward_pass_is_norm_then_codes_then_product(norm_eps):
    made = layer(norm_eps=norm_eps)
    x = normal(2, 5, 30, seed=3) * 3
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
    x = normal(4, 30, seed=5).requires_grad_()
    given_back = normal(4, 7, seed=6)
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
    x = normal(4, 30, seed=5)
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
def test_a_packed_layer_is_equal_bit_by_bit(columns, rows, bias, norm_eps, seed, dtype):
    made = layer(columns, rows, bias, norm_eps, seed).to(dtype)
    x = normal(2, 3, columns, seed=seed).to(dtype)
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

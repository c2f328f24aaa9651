"""Products on the CPU: either library gives the product, casts are shared, nothing of the process
stays changed."""

import pytest
import torch
import torch.nn.functional as F
from tests.random_tensors import normal

from prunebook.errors import UserError
from prunebook.passes import precision
from prunebook.passes.precision import chosen_ways, matmul_precision, rounded_linear

CPU = torch.device("cpu")


@torch.no_grad()
@pytest.mark.parametrize("library", ["mkl", "onednn"])
def test_exact_goes_through_the_chosen_library(monkeypatch, library):
    used = []
    monkeypatch.setattr(precision, "linear_library", lambda: library)
    monkeypatch.setattr(
        precision, "onednn_linear", lambda *given: used.append("onednn") or F.linear(*given)
    )
    x = normal(3, 8)
    weight = normal(4, 8)
    with matmul_precision(CPU, "exact"):
        assert torch.equal(F.linear(x, weight), x @ weight.T)
    assert used == (["onednn"] if library == "onednn" else [])


@torch.no_grad()
def test_fast_linears_multiply_what_autocast_would():
    x = normal(2, 5, 33)
    weight = normal(17, 33, seed=1)
    bias = normal(17, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.linear(x, weight, bias)
    with matmul_precision(CPU, "fast"):
        for given in (x, x.bfloat16()):
            for matrix in (weight, weight.bfloat16()):
                found = F.linear(given, matrix, bias)
                assert found.dtype is torch.bfloat16
                assert torch.equal(found, expected)


@torch.no_grad()
def test_linears_of_one_tensor_share_its_cast_until_it_changes():
    x = normal(4, 8)
    weight = normal(3, 8)
    mode = precision._CpuProducts()
    with torch.autocast("cpu", torch.bfloat16), mode:
        first = F.linear(x, weight)
        cast = mode._cast_of[2]
        assert torch.equal(F.linear(x, weight), first)
        assert mode._cast_of[2] is cast
        x.mul_(2)
        assert torch.equal(F.linear(x, weight), 2 * first)
        assert torch.equal(F.linear(x.clone(), weight), 2 * first)


def test_tensors_of_inference_mode_are_not_remembered():
    with torch.inference_mode(), matmul_precision(CPU, "fast"):
        x = torch.ones(2, 4)
        assert F.linear(x, torch.ones(3, 4)).tolist() == [[4.0] * 3] * 2
        x.zero_()
        assert F.linear(x, torch.ones(3, 4)).tolist() == [[0.0] * 3] * 2


def test_a_rounded_product_is_that_of_its_operands_in_float32():
    x = normal(300, 64).bfloat16().float()
    weight = normal(20, 64, seed=1).bfloat16().float()
    found = rounded_linear(x, weight)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-5)


def test_rounded_products_change_no_setting(monkeypatch):
    before = torch.backends.mkldnn.matmul.fp32_precision
    rounded_linear(torch.ones(2, 3), torch.ones(4, 3))
    assert torch.backends.mkldnn.matmul.fp32_precision == before

    def fail(*_):
        raise RuntimeError("broken product")

    monkeypatch.setattr(precision, "onednn_linear", fail)
    with pytest.raises(RuntimeError, match="broken product"):
        rounded_linear(torch.ones(2, 3), torch.ones(4, 3))
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_both_ways_of_fast_attention_are_that_of_torch(monkeypatch, fused, key_heads, scale):
    monkeypatch.setattr(precision, "_fused_attention_is_faster", lambda: fused)
    query = normal(3, 4, 9, 8)
    key = normal(3, key_heads, 9, 8, seed=1)
    value = normal(3, key_heads, 9, 8, seed=2)
    options = {"is_causal": True, "scale": scale, "enable_gqa": True}
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    with matmul_precision(CPU, "fast"):
        found = F.scaled_dot_product_attention(query, key, value, **options)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_the_way_of_attention_is_measured_with_two_that_agree(monkeypatch):
    found = []
    monkeypatch.setattr(
        precision, "is_clearly_faster", lambda *ways: found.extend(way() for way in ways) or True
    )
    precision._fused_attention_is_faster.cache_clear()
    try:
        with torch.no_grad():
            assert precision._fused_attention_is_faster()
    finally:
        precision._fused_attention_is_faster.cache_clear()
    torch.testing.assert_close(found[0].float(), found[1].float(), rtol=0.05, atol=0.05)


def test_what_was_chosen_has_a_name_for_caches(monkeypatch):
    monkeypatch.setattr(precision, "linear_library", lambda: "mkl")
    monkeypatch.setattr(precision, "_fused_attention_is_faster", lambda: True)
    assert chosen_ways(CPU, "exact") == "mkl"
    assert chosen_ways(CPU, "fast") == "mkl fused"
    monkeypatch.setattr(precision, "_fused_attention_is_faster", lambda: False)
    assert chosen_ways(CPU, "fast") == "mkl products"
    assert chosen_ways(torch.device("cuda"), "fast") == "default"


def contiguous(x):
    return x


def transposed(x):
    return x.mT.contiguous().mT


def every_second(x):
    return torch.stack([x, x], -1).flatten(-2)[..., ::2]


@torch.no_grad()
@pytest.mark.parametrize("layout", [contiguous, transposed, every_second])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 33), (2, 7, 33), (1, 33), (2, 0, 33)])
def test_exact_linear_layers_are_those_of_torch(layout, with_bias, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(17, 33, generator=generator)
    bias = torch.randn(17, generator=generator) if with_bias else None
    expected = F.linear(x.double(), weight.double(), bias.double() if with_bias else None)
    with matmul_precision(CPU, "exact"):
        ours = F.linear(layout(x), layout(weight), bias)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("length", [1, 9])
def test_fast_attention_is_that_of_torch(key_heads, length):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, length, 8, generator=generator)
    key, value = torch.randn(2, 3, key_heads, length, 8, generator=generator)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    with matmul_precision(CPU, "fast"):
        ours = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(ours.float(), expected, rtol=0.05, atol=0.05)


def test_gradients_and_other_dtypes_go_to_torch():
    x = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(2, 4)
    with matmul_precision(CPU, "exact"):
        F.linear(x, weight).sum().backward()
        assert torch.equal(F.linear(x.double(), weight.double()), x.double() @ weight.double().T)
    torch.testing.assert_close(x.grad, weight.sum(0).expand(3, 4))


def test_an_unknown_precision_is_refused():
    with (
        pytest.raises(UserError, match="precision 'half' is unknown"),
        matmul_precision(CPU, "half"),
    ):
        pass


def test_matrices_without_columns_give_their_bias():
    bias = torch.tensor([1.0, -2.0])
    with matmul_precision(torch.device("cpu"), "exact"):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                found = torch.nn.functional.linear(torch.zeros(2, 3, 0), torch.zeros(2, 0), bias)
                assert torch.equal(found, bias.expand(2, 3, 2))


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

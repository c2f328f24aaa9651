"""Products with packed 2:4 weights: kernels beside float64, odd sizes, and who is asked when."""

import re

import pytest
import torch
import torch.nn.functional as F
from tests.kernels.comparing import DTYPES, assert_as_exact_as_dense, unwritten_memory_is_nan
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton
from tests.random_tensors import normal
from tests.refusals import refused_in_one_line

from prunebook.kernels.formats.n_of_m import Packed
from prunebook.kernels.matmul import two_four
from prunebook.kernels.matmul.two_four import launch_linear_2_4, linear_2_4, linear_2_4_reference
from prunebook.kernels.score import Score
from prunebook.kernels.topk.n_of_m import select_n_of_m


def draw(rows, width, tokens, dtype, seed=0):
    """x, the 2:4 weight, the same packed, and a bias; a few weights and a whole row are zero."""
    weight = normal(rows, width, seed=seed).to(dtype).to(DEVICE)
    weight[:, 4:8] = 0
    weight[rows // 2] = -0.0
    packed = select_n_of_m(Score(weight), 2, 4, want="packed")
    x = normal(tokens, width, seed=seed + 1).to(dtype).to(DEVICE)
    bias = normal(rows, seed=seed + 2).to(dtype).to(DEVICE)
    return x, weight, packed, bias


def launched(*arguments):
    """What the kernels write into memory that is NaN before."""
    with unwritten_memory_is_nan():
        return launch_linear_2_4(*arguments)


@needs_triton
@pytest.mark.parametrize(
    ("rows", "width", "tokens", "dtype"),
    [
        # Each kernel in each dtype: few tokens, and more of them.
        *((7, 20, 2, dtype) for dtype in DTYPES),
        *((3, 576, 17, dtype) for dtype in DTYPES),
        # Other shapes in one dtype each.
        (1, 4, 1, torch.float32),
        (5, 36, 1, torch.bfloat16),
        (3, 576, 3, torch.float16),
        (5, 1028, 4, torch.bfloat16),
        (66, 60, 5, torch.float32),
        (65, 300, 33, torch.bfloat16),
    ],
)
def test_products_are_as_exact_as_dense_ones(rows, width, tokens, dtype):
    x, weight, packed, bias = draw(rows, width, tokens, dtype, seed=rows)
    assert_as_exact_as_dense(launched(x, packed, bias), x, weight, bias)


@needs_triton
@pytest.mark.parametrize("tokens", [2, 6])
def test_without_a_bias_and_of_any_shape(tokens):
    x, weight, packed, _ = draw(9, 44, 2 * tokens, torch.float16)
    found = launched(x.view(2, tokens, 44), packed, None)
    assert found.shape == (2, tokens, 9)
    assert_as_exact_as_dense(found.flatten(0, 1), x, weight)
    assert launched(x[0], packed, None).shape == (9,)


@needs_triton
@pytest.mark.parametrize("tokens", [1, 3, 9])
def test_strides_do_not_matter(tokens):
    x, _, packed, bias = draw(6, 40, tokens, torch.float32)
    turned = x.T.contiguous().T
    apart = [one.repeat_interleave(2, dim=1)[:, ::2] for one in (packed.values, packed.codes)]
    assert tokens == 1 or not turned.is_contiguous()
    assert torch.equal(launched(turned, Packed(*apart, 2, 4), bias), launched(x, packed, bias))


@needs_triton
@pytest.mark.parametrize("tokens", [1, 16])
def test_each_weight_meets_its_own_input(tokens):
    """Of whole numbers every sum is exact: a wrong place or a wrong plane shows as a wrong
    number."""
    width = 144
    rows = 6
    packed = select_n_of_m(Score(normal(rows, width, seed=3).to(DEVICE)), 2, 4, want="packed")
    values = torch.arange(packed.values.numel(), device=DEVICE).view_as(packed.values).float()
    packed = Packed(values, packed.codes, 2, 4)
    x = torch.arange(tokens * width, device=DEVICE).view(tokens, width).float() % 64
    assert torch.equal(launched(x, packed), linear_2_4_reference(x, packed))


@needs_triton
def test_parts_of_k_are_added_in_the_same_order_every_time(monkeypatch):
    x, weight, packed, bias = draw(5, 576, 8, torch.float32)
    monkeypatch.setattr(two_four, "PROGRAMS", 6)
    first = launched(x, packed, bias)
    assert torch.equal(first, launched(x, packed, bias))
    assert_as_exact_as_dense(first, x, weight, bias)
    monkeypatch.setattr(two_four, "PROGRAMS", 1)
    whole = launched(x, packed, bias)
    assert_as_exact_as_dense(whole, x, weight, bias)
    assert not torch.equal(first, whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_is_the_dense_product(dtype):
    x, weight, packed, bias = draw(9, 44, 3, dtype)
    assert torch.equal(linear_2_4_reference(x, packed, bias), F.linear(x, weight, bias))
    assert torch.equal(linear_2_4_reference(x[:0], packed, bias), x.new_zeros(0, 9))


def test_a_cpu_takes_the_reference_and_a_gpu_what_pays(monkeypatch):
    asked = []
    for name in ("linear_2_4_reference", "launch_linear_2_4", "_linear_of_many"):
        monkeypatch.setattr(two_four, name, lambda *_, name=name: asked.append(name))
    x, _, packed, bias = draw(8, 16, 65, torch.float32)
    for native in (False, True):
        monkeypatch.setattr(two_four, "runs_natively", lambda *_, native=native, **__: native)
        for tokens in (0, 1, 64, 65):
            linear_2_4(x[:tokens], packed, bias)
        linear_2_4(x[:1].requires_grad_(), packed, bias)
    reference = "linear_2_4_reference"
    kernel = "launch_linear_2_4"
    many = "_linear_of_many"
    assert asked == [reference] * 5 + [reference, kernel, kernel, many, reference]


@pytest.mark.parametrize("tokens", [1, 20])
def test_many_tokens_meet_the_unpacked_weight(monkeypatch, tokens):
    monkeypatch.setattr(two_four, "DENSE_TOKENS", 10)
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: True)
    # no sparse tensor cores for float32: dense again
    x, weight, packed, bias = draw(9, 44, tokens, torch.float32)
    assert torch.equal(two_four._linear_of_many(x, packed, bias), F.linear(x, weight, bias))


def test_gradients_go_to_the_input():
    x, weight, packed, _ = draw(9, 44, 3, torch.float32)
    linear_2_4(x.requires_grad_(), packed).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(3, 44))


def test_autocast_casts_as_it_does_for_a_linear():
    x, weight, packed, bias = draw(9, 44, 3, torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = linear_2_4(x, packed, bias)
        mixed = linear_2_4(x.bfloat16(), packed, bias)
        expected = F.linear(x, weight, bias)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    assert torch.equal(mixed, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"packed": Packed(torch.ones(2, 4), torch.ones(2, 1).byte(), 4, 8)},
            "packed is 4:8; linear_2_4 multiplies 2",
        ),
        (
            {"x": torch.ones(3, 12)},
            "x is torch.float32 [3, 12]; a packed weight [5, 16] needs torch.float32 [..., 16]",
        ),
        (
            {"x": torch.ones(3, 16).half()},
            "x is torch.float16 [3, 16]; a packed weight [5, 16] needs torch.float32",
        ),
        ({"x": torch.ones(())}, "x is torch.float32 []; a packed weight [5, 16] needs"),
        (
            {"bias": torch.ones(1)},
            "bias is torch.float32 [1]; a packed weight [5, 16] needs torch.float32 [5]",
        ),
        (
            {"bias": torch.ones(5).half()},
            "bias is torch.float16 [5]; a packed weight [5, 16] needs torch.float32 [5]",
        ),
        (
            {"packed": Packed(torch.ones(5, 8), torch.zeros(4, 1, dtype=torch.int16), 2, 4)},
            "codes are torch.int16 [4, 1]; a 2:4 weight [5, 16] needs torch.int16 [5, 1]",
        ),
    ],
)
def test_bad_input_is_one_line(change, message):
    x, _, packed, bias = draw(5, 16, 3, torch.float32)
    with refused_in_one_line(re.escape(message)):
        linear_2_4(**{"x": x, "packed": packed, "bias": bias} | change)


@needs_triton
def test_kernels_compile_for_hopper_without_spills():
    printed = compile_apart(
        """
import torch
from prunebook.kernels.matmul.two_four import launch_linear_2_4
from prunebook.kernels.formats.n_of_m import Packed
with compiled_for() as found:
    codes = torch.zeros(4096, 256, dtype=torch.int16)
    for dtype, tokens in [
        (torch.bfloat16, 1), (torch.bfloat16, 4), (torch.float16, 16), (torch.bfloat16, 64)
    ]:
        packed = Packed(torch.zeros(4096, 2048, dtype=dtype), codes, 2, 4)
        launch_linear_2_4(torch.zeros(tokens, 4096, dtype=dtype), packed)
    packed = Packed(torch.zeros(4096, 2048), codes, 2, 4)
    launch_linear_2_4(torch.zeros(64, 4096), packed)
instructions = ("ld.global.v4", "fma.rn.f32", "cp.async.cg", "wgmma.mma_async")
for kernel in found:
    marks = [text for text in instructions if text in kernel.ptx]
    print(kernel.name, kernel.stack, kernel.registers, *marks)
"""
    )
    kernels = [line.split() for line in printed.splitlines()]
    names = ["fma_kernel"] * 2 + ["tile_kernel", "add_kernel"] * 3
    assert [kernel[0] for kernel in kernels] == names
    assert all(kernel[1] == "0" and int(kernel[2]) <= 168 for kernel in kernels)
    assert all(kernel[3:] == ["ld.global.v4", "fma.rn.f32"] for kernel in kernels[:2])
    assert all(
        kernel[3:] == ["cp.async.cg", "wgmma.mma_async"] for kernel in (kernels[2], kernels[4])
    )
    assert "fma.rn.f32" in kernels[6]  # of float32, not of the ten bits of TF32

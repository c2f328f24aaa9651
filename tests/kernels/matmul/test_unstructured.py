"""Products with weights stored without their zeros: kernels beside float64, odd sizes, and who is
asked when."""

import dataclasses
import re

import pytest
import torch
import torch.nn.functional as F
from tests.kernels.comparing import DTYPES, assert_as_exact_as_dense, unwritten_memory_is_nan
from tests.kernels.compiling import DEVICE, compile_apart, needs_triton
from tests.kernels.formats.sparse_weights import sparse
from tests.random_tensors import normal
from tests.refusals import refused_in_one_line

from prunebook.kernels.formats.bitmap import Bitmap, pack_bitmap
from prunebook.kernels.formats.ell import Ell, pack_ell
from prunebook.kernels.matmul import unstructured
from prunebook.kernels.matmul.unstructured import (
    launch_linear_unstructured,
    linear_unstructured,
    linear_unstructured_reference,
)

FORMS = {"bitmap": pack_bitmap, "ell": pack_ell}


def draw(rows, width, tokens, dtype, share=0.4, seed=0):
    """x, a weight with an empty and, if there are three, a full row, and a bias."""
    weight = sparse(rows, width, share, dtype, seed)
    weight[rows // 2] = -0.0
    if rows > 2:
        weight[-1] = normal(width, seed=seed + 3).to(dtype).to(DEVICE)
    x = normal(tokens, width, seed=seed + 1).to(dtype).to(DEVICE)
    bias = normal(rows, seed=seed + 2).to(dtype).to(DEVICE)
    return x, weight, bias


def launched(*arguments):
    """What the kernels write into memory that is NaN before."""
    with unwritten_memory_is_nan():
        return launch_linear_unstructured(*arguments)


@needs_triton
@pytest.mark.parametrize(
    ("form", "rows", "width", "tokens", "dtype"),
    [
        # Each kernel in each dtype: few tokens of a bitmap, more tokens of it, and an `Ell`.
        *(("bitmap", 5, 37, 2, dtype) for dtype in DTYPES),
        *(("bitmap", 3, 601, 17, dtype) for dtype in DTYPES),
        *(("ell", 5, 37, 2, dtype) for dtype in DTYPES),
        # Other shapes in one dtype each.
        ("bitmap", 1, 1, 1, torch.float32),
        ("bitmap", 3, 1101, 3, torch.bfloat16),
        ("bitmap", 4, 576, 4, torch.float16),
        ("bitmap", 3, 44, 8, torch.bfloat16),
        ("bitmap", 66, 60, 5, torch.float16),
        ("bitmap", 2, 100, 33, torch.bfloat16),
        ("ell", 1, 1, 1, torch.float16),
        ("ell", 3, 1101, 3, torch.float32),
        ("ell", 4, 576, 4, torch.bfloat16),
    ],
)
def test_products_are_as_exact_as_dense_ones(form, rows, width, tokens, dtype):
    x, weight, bias = draw(rows, width, tokens, dtype, seed=rows)
    assert_as_exact_as_dense(launched(x, FORMS[form](weight), bias), x, weight, bias)


@needs_triton
@pytest.mark.parametrize(("form", "tokens"), [("bitmap", 1), ("bitmap", 6), ("ell", 1)])
def test_without_a_bias_and_of_any_shape(form, tokens):
    x, weight, _ = draw(9, 44, 2 * tokens, torch.float16)
    packed = FORMS[form](weight)
    found = launched(x.view(2, tokens, 44), packed)
    assert found.shape == (2, tokens, 9)
    assert_as_exact_as_dense(found.flatten(0, 1), x, weight)
    assert launched(x[0], packed).shape == (9,)


@needs_triton
@pytest.mark.parametrize(("form", "tokens"), [("bitmap", 3), ("bitmap", 9), ("ell", 3)])
def test_strides_do_not_matter(form, tokens):
    x, weight, bias = draw(6, 40, tokens, torch.float32)
    packed = FORMS[form](weight)
    turned = x.T.contiguous().T
    parts = {name: one for name, one in vars(packed).items() if isinstance(one, torch.Tensor)}
    apart = dataclasses.replace(
        packed, **{k: one.repeat_interleave(2, dim=-1)[..., ::2] for k, one in parts.items()}
    )
    assert not turned.is_contiguous()
    assert not apart.values.is_contiguous()
    assert torch.equal(launched(turned, apart, bias), launched(x, packed, bias))


@needs_triton
@pytest.mark.parametrize(
    ("form", "tokens", "share"),
    [
        *(("bitmap", 2, share) for share in (0.01, 0.5, 1)),
        ("bitmap", 16, 0.5),
        *(("ell", 2, share) for share in (0.01, 0.5, 1)),
    ],
)
def test_each_weight_meets_its_own_input(form, tokens, share):
    """Of whole numbers every sum is exact: a wrong place shows as a wrong number."""
    width = 600
    rows = 3
    weight = torch.arange(rows * width, device=DEVICE).view(rows, width).float() % 97 + 1
    weight[sparse(rows, width, share, seed=3) == 0] = 0
    x = torch.arange(tokens * width, device=DEVICE).view(tokens, width).float() % 64
    assert torch.equal(launched(x, FORMS[form](weight)), F.linear(x, weight))


@needs_triton
@pytest.mark.parametrize("tokens", [1, 8])
def test_parts_of_k_are_added_in_the_same_order_every_time(monkeypatch, tokens):
    x, weight, bias = draw(2, 600, tokens, torch.float32)
    packed = pack_bitmap(weight)
    first = launched(x, packed, bias)
    assert torch.equal(first, launched(x, packed, bias))
    monkeypatch.setattr(unstructured, "_WARPS", 1)
    whole = launched(x, packed, bias)
    assert_as_exact_as_dense(whole, x, weight, bias)
    assert not torch.equal(first, whole)


@needs_triton
def test_infinite_inputs_reach_a_result_only_through_weights():
    """An `Ell` skips zeros that they meet; what fills its rows up lies beyond the inputs or counts
    for nothing."""
    weight = torch.tensor([[1.0] * 6, [0.0, 0, 0, 0, 0, 2]], device=DEVICE)
    x = torch.tensor([[float("inf"), 1, 1, 1, 1, 1]], device=DEVICE)
    assert launched(x, pack_ell(weight)).tolist() == [[float("inf"), 2]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_is_the_dense_product(form, dtype):
    x, weight, bias = draw(9, 43, 3, dtype)
    packed = FORMS[form](weight)
    assert torch.equal(linear_unstructured_reference(x, packed, bias), F.linear(x, weight, bias))
    assert torch.equal(linear_unstructured(x[:0], packed, bias), x.new_zeros(0, 9))


def test_a_cpu_takes_the_reference_and_a_gpu_what_pays(monkeypatch):
    asked = []
    for name in ("linear_unstructured_reference", "launch_linear_unstructured"):
        monkeypatch.setattr(
            unstructured, name, lambda *_, name=name: asked.append(name.split("_")[0])
        )
    x, weight, bias = draw(8, 16, 65, torch.float32)
    for packed in (pack_bitmap(weight), pack_ell(weight)):
        for native in (False, True):
            monkeypatch.setattr(
                unstructured, "runs_natively", lambda *_, native=native, **__: native
            )
            for tokens in (0, 1, 4, 5, 64, 65):
                linear_unstructured(x[:tokens], packed, bias)
            linear_unstructured(x[:1].detach().requires_grad_(), packed, bias)
    cpu = ["linear"] * 7
    kernel = "launch"
    other = "linear"
    bitmaps = [other, kernel, kernel, kernel, kernel, other, other]
    ells = [other, kernel, kernel, other, other, other, other]
    assert asked == cpu + bitmaps + cpu + ells


@pytest.mark.parametrize("form", FORMS)
def test_gradients_go_to_the_input(form):
    x, weight, _ = draw(9, 43, 3, torch.float32)
    linear_unstructured(x.requires_grad_(), FORMS[form](weight)).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(3, 43))


@pytest.mark.parametrize("form", FORMS)
def test_autocast_casts_as_it_does_for_a_linear(form):
    x, weight, bias = draw(9, 43, 3, torch.float32)
    packed = FORMS[form](weight)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = linear_unstructured(x, packed, bias)
        mixed = linear_unstructured(x.bfloat16(), packed, bias)
        expected = F.linear(x, weight, bias)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    assert torch.equal(mixed, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
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
            {
                "packed": Bitmap(
                    torch.ones(8), torch.zeros(5, 3).byte(), torch.zeros(5, 1).int(), 16
                )
            },
            "bits are torch.uint8 [5, 3]; a weight [5, 16] needs torch.uint8 [5, 2]",
        ),
        (
            {"packed": Ell(torch.ones(5, 8), torch.zeros(5, 8), 16)},
            "deltas are torch.float32 [5, 8]; values [5, 8] need torch.uint8 of that shape",
        ),
    ],
)
def test_bad_input_is_one_line(change, message):
    x, weight, bias = draw(5, 16, 3, torch.float32)
    with refused_in_one_line(re.escape(message)):
        linear_unstructured(**{"x": x, "packed": pack_bitmap(weight), "bias": bias} | change)


@needs_triton
def test_kernels_compile_for_hopper_without_spills():
    """Up to four tokens a thread waits for none beyond its warp, so that no kernel there has a
    barrier."""
    printed = compile_apart(
        """
import torch
from prunebook.kernels.formats.bitmap import Bitmap
from prunebook.kernels.formats.ell import Ell
from prunebook.kernels.matmul.unstructured import launch_linear_unstructured
def bitmap(dtype):
    bits = torch.zeros(4096, 512, dtype=torch.uint8)
    starts = torch.zeros(4096, 8, dtype=torch.int32)
    return Bitmap(torch.zeros(4096 * 2048, dtype=dtype), bits, starts, 4096)
with compiled_for() as found:
    for dtype, tokens in [
        (torch.bfloat16, 1), (torch.bfloat16, 4), (torch.float16, 16), (torch.bfloat16, 64)
    ]:
        launch_linear_unstructured(torch.zeros(tokens, 4096, dtype=dtype), bitmap(dtype))
    launch_linear_unstructured(torch.zeros(64, 4096), bitmap(torch.float32))
    ell = torch.zeros(4096, 824, dtype=torch.bfloat16), torch.zeros(4096, 824, dtype=torch.uint8)
    for tokens in (1, 4):
        launch_linear_unstructured(torch.zeros(tokens, 4096, dtype=torch.bfloat16), Ell(*ell, 4096))
instructions = (
    "ld.global.v4.b32", "ld.global.v2.b32", "fma.rn.f32", "bar.sync", "cp.async.cg",
    "wgmma.mma_async",
)
for kernel in found:
    marks = [text for text in instructions if text in kernel.ptx]
    print(kernel.name, kernel.stack, kernel.registers, *marks)
"""
    )
    kernels = [line.split() for line in printed.splitlines()]
    tiles = ["bitmap_tile_kernel", "add_kernel"] * 3
    assert [kernel[0] for kernel in kernels] == ["bitmap_fma_kernel"] * 2 + tiles + [
        "ell_kernel"
    ] * 2
    assert all(kernel[1] == "0" and int(kernel[2]) <= 200 for kernel in kernels)
    assert all(kernel[3:] == ["ld.global.v4.b32", "fma.rn.f32"] for kernel in kernels[:2])
    assert all(
        kernel[3:] == ["bar.sync", "cp.async.cg", "wgmma.mma_async"]
        for kernel in (kernels[2], kernels[4])
    )
    assert "fma.rn.f32" in kernels[6]  # of float32, not of the ten bits of TF32
    assert all(kernel[3:] == ["ld.global.v2.b32", "fma.rn.f32"] for kernel in kernels[8:])

"""The real cases on small shapes: every implementation that a CPU has is right, and gets what it
asks for. What they launch is compiled for Hopper, where it fits a multiprocessor."""

import json
from dataclasses import replace

import pytest
import torch
from tests.bench.fakes import RUN, FakeTimer
from tests.kernels.compiling import compile_apart, needs_triton

from prunebook.bench.case import MissingError, copied
from prunebook.bench.cases import (
    all_cases,
    attention_decode,
    attention_mass,
    compaction,
    logits,
    matmul_2_4,
    matmul_unstructured,
    n_of_m,
    one_shot,
    products,
    select_layer,
    select_rows,
    sparsegpt,
    ternary,
    weights,
)
from prunebook.bench.measure import measure
from prunebook.bench.record import CONTROL, OWN
from prunebook.kernels.formats.bitmap import pack_bitmap

ON_CUDA = {
    "torch 2:4, cuSPARSELt",
    "torch 2:4, CUTLASS",
    "dense FP8",
    "torch's 4x4 tile kernel",
    "torch.topk and to_sparse_semi_structured",
    "dense int8",
    "torch CSR, cuSPARSE",
}


def without_kernels(case):
    """The case with its public calls alone: tests/kernels has an interpreted pass over a layer,
    which takes 15 s."""
    return replace(case, providers=[replace(provider, device=None) for provider in case.providers])


def without_compiled(case):
    """The case without what takes a compiler."""
    return replace(
        case, providers=[provider for provider in case.providers if "compiled" not in provider.name]
    )


SMALL = [
    *(select_rows.case(6, 64, score, 0.7, rank=1) for score in ("wanda", "ria", "magnitude")),
    select_rows.case(3, 100, "wanda", 0.5, rank=2, heavy=True),
    without_kernels(select_layer.case(6, 64, "ria", rank=1)),
    n_of_m.case(6, 64, 2, 4, "wanda", rank=1),
    n_of_m.case(6, 64, 4, 8, "ria", rank=1),
    matmul_2_4.case(3, 32, 64, rank=1),
    ternary.case(3, 40, 66, rank=1),
    matmul_unstructured.case(3, 40, 520, 0.7, rank=1),
    matmul_unstructured.case(8, 40, 64, 0.5, rank=1),
    attention_mass.case(40, 2, rank=1, heads=4, width=16),
    attention_mass.case(24, 2, rank=1, heads=2, width=16, noise=True),
    attention_decode.case(2, 64, 2, rank=1, heads=8, width=16),
    attention_decode.case(2, 40, 2, rank=1, heads=4, width=16, noise=True),
    compaction.case(64, 24, 2, rank=1, width=8),
    sparsegpt.block(6, "0.5", rank=1, columns=32),
    sparsegpt.block(6, "2:4", rank=1, columns=32),
    sparsegpt.layer(8, 160, rank=1),
    without_compiled(logits.case(5, 48, rank=1)),
    one_shot.case(2, 3, 16, {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}),
]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.key)
def test_who_runs_on_a_cpu_is_right(case):
    rows = measure(case, FakeTimer(), 0, RUN)
    found = {row.name: (row.status, row.reason) for row in rows}
    assert {name for name, (status, _) in found.items() if status == "missing"} == set(
        found
    ) & ON_CUDA
    assert {status for status, _ in found.values()} <= {"timed", "missing"}, found


def test_every_family_has_a_small_case():
    assert {case.kernel for case in SMALL} == {case.kernel for case in all_cases()}


def test_every_case_has_a_key_of_its_own_and_ours_first():
    cases = all_cases()
    assert len({case.key for case in cases}) == len(cases)
    assert {case.providers[0].name for case in cases} == {"prunebook"}
    assert all(
        len({provider.name for provider in case.providers}) == len(case.providers) for case in cases
    )
    assert all(case.work.bytes > 0 and type(case.rank) is int for case in cases)


def test_no_other_form_of_ours_is_a_rival_and_nothing_is_let_through_uncompared():
    providers = [provider for case in all_cases() for provider in case.providers]
    roles = {provider.name: provider.role for provider in providers if provider.name != "prunebook"}
    assert {name for name, role in roles.items() if role == CONTROL} == {
        "torch's 4x4 tile kernel",
        "the factor alone",
        "the forward passes alone",
        "scaled_dot_product_attention alone",
        "mass without noise",
    }
    assert {name for name, role in roles.items() if role == OWN} == {
        n for n in roles if n.startswith("prunebook")
    }
    assert all(provider.allowed is None or provider.allowed < 1e3 for provider in providers)


def test_a_bitmap_takes_the_bytes_that_its_floor_counts():
    rows = 6
    columns = 1040
    case = matmul_unstructured.case(1, rows, columns, 0.7, rank=1)
    packed = pack_bitmap(case.make(torch.Generator().manual_seed(0))["weight"])
    assert case.work.bytes == packed.nbytes + 2 * (rows + columns)


def test_compaction_in_another_order_is_right_and_another_row_is_not():
    case = compaction.case(64, 24, 2, rank=1, width=8)
    operands = case.make(torch.Generator().manual_seed(0))
    truth = case.reference(copied(operands))
    result = case.providers[0].call(copied(operands))
    assert case.error(result, truth) == 0
    result[1][0, 1, 3] += 1
    assert case.error(result, truth) == pytest.approx(8 / (2 * 24 * 8))


def test_a_call_that_converts_its_weight_is_not_captured():
    captured = {case.shape["tokens"]: case.providers[0].captures for case in matmul_2_4.cases()}
    assert captured == {1: True, 8: True, 16: True, 32: True, 64: True, 256: True, 4096: False}


def test_a_drawn_model_asks_no_generator_but_its_own():
    case = one_shot.case(
        1, 1, 8, {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    )
    before = torch.get_rng_state()
    first, second = (case.make(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    names = [name for name, x in first.items() if isinstance(x, torch.Tensor)]
    assert all(torch.equal(first[name], second[name]) for name in names)
    assert first["model"][0].model.rotary_emb.inv_freq.isfinite().all()


def test_the_headlines_of_all_families_come_before_any_detail():
    headlines = [case for case in all_cases() if case.rank == 0]
    assert {case.kernel for case in headlines} >= {
        "select-rows",
        "n-of-m",
        "product-2-4",
        "sparsegpt",
    }
    assert sum(case.seconds for case in headlines) < 300


def test_weights_have_the_variance_of_a_layer_and_heavy_tails_where_asked():
    ours, heavy = (
        weights.weight(torch.Generator().manual_seed(0), 64, 1024, heavy=heavy)
        for heavy in (False, True)
    )
    assert ours.shape == heavy.shape == (64, 1024)
    assert ours.dtype == heavy.dtype == torch.bfloat16
    assert ours.float().square().mean() == pytest.approx(1 / 1024, rel=0.05)
    # 65,536 normal weights end near four standard deviations; Student's t of 3 goes far beyond.
    assert ours.abs().max() < 6 / 32 < heavy.abs().max()


@pytest.mark.parametrize(
    ("score", "factors"),
    [
        ("magnitude", set()),
        ("wanda", {"columns"}),
        ("ria", {"columns", "column_sums", "row_sums"}),
    ],
)
def test_a_scored_weight_has_the_factors_of_its_score(score, factors):
    operands = weights.scored(torch.Generator().manual_seed(0), 3, 4, score)
    assert {name for name, x in operands.items() if x is not None} == {"weight"} | factors
    expected = operands["weight"].abs().float()
    if "row_sums" in factors:
        expected = expected / expected.sum(0) + expected / expected.sum(1, keepdim=True)
    if "columns" in factors:
        expected = expected * operands["columns"]
    torch.testing.assert_close(weights.score_of(operands).dense(), expected)


def test_the_error_of_a_product_is_in_units_of_the_dense_one():
    generator = torch.Generator().manual_seed(0)
    x = products.inputs(generator, 3, 64)
    truth = products.truth({"x": x, "weight": weights.weight(generator, 5, 64)})
    assert products.error(truth["y"], truth) == 0
    assert products.error(truth["y"] + 2 * truth["unit"], truth) == pytest.approx(2)
    with pytest.raises(MissingError, match="a kernel for CUDA alone"):
        products.needs_cuda({"weight": x})


MOST_SHARED = 232_448  # bytes that a program may have on an H100


# Of each family the case of most tokens that dispatch gives to a kernel, and of those the largest
# weight.
CODE = """
import json, torch
from prunebook.bench.cases import attention_mass, matmul_2_4, matmul_unstructured, ternary
from prunebook.kernels.attention import mass
from prunebook.kernels.matmul import two_four
from prunebook.kernels.formats import n_of_m as packed
from prunebook.kernels.matmul import unstructured, ternary as codes
from prunebook.kernels.attention.noise import Perturbation, stream_of

for module in (mass, two_four, unstructured, packed, codes):
    module.runs_natively = lambda *_, **__: True  # dispatch as on a GPU
dtype = torch.bfloat16


def product_2_4(tokens, rows, columns):
    values = torch.zeros(rows, columns // 2, dtype=dtype)
    words = torch.zeros(rows, columns // 16, dtype=torch.int16)
    weight = packed.Packed(values, words, 2, 4)
    two_four.linear_2_4(torch.zeros(tokens, columns, dtype=dtype), weight)


def product_unstructured(tokens, rows, columns):
    bits = torch.zeros(rows, columns // 8, dtype=torch.uint8)
    starts = torch.zeros(rows, -(-columns // 512), dtype=torch.int32)
    weight = unstructured.Bitmap(torch.zeros(8, dtype=dtype), bits, starts, columns)
    unstructured.linear_unstructured(torch.zeros(tokens, columns, dtype=dtype), weight)


def product_ternary(tokens, rows, columns):
    weight = torch.zeros(rows, columns // 4, dtype=torch.uint8)
    scale = torch.ones(rows)
    launch = codes.launch_ternary
    if tokens <= codes.KERNEL_TOKENS:  # dispatch takes the kernel
        launch = codes.ternary_linear
        launch(torch.zeros(tokens, columns, dtype=dtype), weight, scale)
    launch(torch.zeros(tokens, columns, dtype=torch.int8), weight, scale, torch.ones(tokens, 1))


def largest(family, most):
    names = ("tokens", "rows", "columns")
    shapes = [[case.shape[name] for name in names] for case in family.cases()]
    fitting = [shape for shape in shapes if shape[0] <= most]
    return max(fitting, key=lambda shape: (shape[0], shape[1] * shape[2]))


with compiled_for() as found:
    product_2_4(*largest(matmul_2_4, two_four.KERNEL_TOKENS))
    product_unstructured(*largest(matmul_unstructured, unstructured.BITMAP_TOKENS))
    for most in (codes.KERNEL_TOKENS, 256):
        product_ternary(*largest(ternary, most))
    # The smallest case has the tiles of all.
    tokens, heads, width = min(tuple(case.shape.values()) for case in attention_mass.cases())
    query = torch.empty(1, heads, tokens, width, dtype=dtype)
    keys = torch.empty(1, 8, tokens, width, dtype=dtype)
    positions = torch.arange(tokens)[None]
    for perturbation in (None, Perturbation(torch.ones(1), positions, stream_of(0, 1))):
        mass.attention_mass(query, keys, positions, 0.1, perturbation=perturbation)
print(json.dumps([(one.name, one.shared) for one in found]))
"""


@needs_triton
def test_compiled_for_hopper_every_tile_fits_the_shared_memory():
    found = json.loads(compile_apart(CODE).splitlines()[-1])
    assert {name for name, shared in found if shared} >= {
        "tile_kernel",
        "bitmap_tile_kernel",
        "ternary_kernel",
        "lse_kernel",
        "mass_kernel",
    }
    assert max(shared for _, shared in found) <= MOST_SHARED, found

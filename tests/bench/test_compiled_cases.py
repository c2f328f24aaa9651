"""What the cases launch, compiled for Hopper: it fits the shared memory of a multiprocessor."""

import json

from tests.kernels.compiling import compile_apart, needs_triton

MOST_SHARED = 232_448  # bytes that a program may have on an H100

# Of each family the case of most tokens that dispatch gives to a kernel, and of those the largest
# weight.
CODE = """
import json, torch
from prunebook.bench.cases import attention_mass, matmul_2_4, matmul_unstructured, ternary
from prunebook.kernels import attention_mass as mass, matmul_2_4 as two_four, matmul_unstructured as unstructured
from prunebook.kernels import packed, ternary as codes
from prunebook.kernels.noise import Perturbation, stream_of

for module in (mass, two_four, unstructured, packed, codes):
    module.runs_natively = lambda *_, **__: True  # dispatch as on a GPU
dtype = torch.bfloat16


def product_2_4(tokens, rows, columns):
    values, words = torch.zeros(rows, columns // 2, dtype=dtype), torch.zeros(rows, columns // 16, dtype=torch.int16)
    two_four.linear_2_4(torch.zeros(tokens, columns, dtype=dtype), packed.Packed(values, words, 2, 4))


def product_unstructured(tokens, rows, columns):
    bits, starts = torch.zeros(rows, columns // 8, dtype=torch.uint8), torch.zeros(rows, -(-columns // 512))
    weight = unstructured.Bitmap(torch.zeros(8, dtype=dtype), bits, starts.int(), columns)
    unstructured.linear_unstructured(torch.zeros(tokens, columns, dtype=dtype), weight)


def product_ternary(tokens, rows, columns):
    weight, scale = torch.zeros(rows, columns // 4, dtype=torch.uint8), torch.ones(rows)
    launch = codes.ternary_linear if tokens <= codes.KERNEL_TOKENS else codes.launch_ternary  # as the case has it
    launch(torch.zeros(tokens, columns, dtype=torch.int8), weight, scale, torch.ones(tokens, 1))
    if tokens <= codes.KERNEL_TOKENS:
        codes.ternary_linear(torch.zeros(tokens, columns, dtype=dtype), weight, scale)


def largest(family, most):
    shapes = [tuple(case.shape[name] for name in ("tokens", "rows", "columns")) for case in family.cases()]
    return max((shape for shape in shapes if shape[0] <= most), key=lambda shape: (shape[0], shape[1] * shape[2]))


with compiled_for() as found:
    product_2_4(*largest(matmul_2_4, two_four.KERNEL_TOKENS))
    product_unstructured(*largest(matmul_unstructured, unstructured.BITMAP_TOKENS))
    for most in (codes.KERNEL_TOKENS, 256):
        product_ternary(*largest(ternary, most))
    tokens, heads, width = min(tuple(case.shape.values()) for case in attention_mass.cases())  # tiles are those of all
    query, keys = (torch.empty(1, n, tokens, width, dtype=dtype) for n in (heads, 8))
    positions = torch.arange(tokens)[None]
    for perturbation in (None, Perturbation(torch.ones(1), positions, stream_of(0, 1))):
        mass.attention_mass(query, keys, positions, 0.1, perturbation=perturbation)
print(json.dumps([(one.name, one.shared) for one in found]))
"""


@needs_triton
def test_compiled_for_hopper_every_tile_fits_the_shared_memory():
    found = json.loads(compile_apart(CODE).splitlines()[-1])
    assert {name for name, shared in found if shared} >= {
        "_tile_kernel",
        "_bitmap_tile_kernel",
        "_ternary_kernel",
        "_lse_kernel",
        "_mass_kernel",
    }
    assert max(shared for _, shared in found) <= MOST_SHARED, found

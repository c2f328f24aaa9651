"""What the cases launch, compiled for Hopper: it fits the shared memory of a multiprocessor."""

import json

from tests.kernels.compiling import compile_apart, needs_triton

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

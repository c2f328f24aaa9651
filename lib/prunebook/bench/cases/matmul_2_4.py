"""The product with a packed 2:4 weight, beside dense bfloat16, dense FP8 and torch's 2:4."""

from itertools import product

import torch
import torch.nn.functional as F

from ...kernels.formats.n_of_m import Packed
from ...kernels.matmul.two_four import DENSE_TOKENS, linear_2_4
from ...kernels.score import Score
from ...kernels.topk.n_of_m import select_n_of_m
from .. import work
from ..case import Case, MissingError, Operands, Provider
from . import products
from .weights import DOWN, SQUARE, UP, weight

KERNEL = "product-2-4"
_GATE_UP = (22016, 4096)
_TOKENS = (1, 8, 16, 32, 64, 256, 4096)


def cases() -> list[Case]:
    """The cases of this family."""
    by_shape = [
        case(tokens, *shape, rank=(tokens not in (1, 16, 64)) + (shape != UP))
        for shape, tokens in product((UP, SQUARE, DOWN), _TOKENS)
    ]
    return [*by_shape, case(1, *_GATE_UP, rank=1)]


def case(tokens: int, rows: int, columns: int, rank: int) -> Case:
    """The case of one number of tokens and one shape of the weight."""
    providers = [
        Provider(
            "prunebook",
            lambda o: linear_2_4(o["x"], _packed_of(o)),
            prepare=_pack,
            # With more tokens each call converts the weight by a library.
            captures=tokens <= DENSE_TOKENS,
        ),
        *products.dense(),
        Provider(
            "torch 2:4, cuSPARSELt",
            _torch_2_4,
            prepare=_for_cusparselt,
            note="its algorithm 0, torch's default; none is searched for",
        ),
        Provider("torch 2:4, CUTLASS", _torch_2_4, prepare=_for_cutlass),
    ]
    return Case(
        KERNEL,
        {"tokens": tokens, "rows": rows, "columns": columns},
        work.product_2_4(tokens, rows, columns),
        lambda generator: _operands(generator, tokens, rows, columns),
        products.truth,
        products.error,
        providers,
        allowed=products.ALLOWED,
        rank=rank,
        seconds=10,
    )


def _operands(generator: torch.Generator, tokens: int, rows: int, columns: int) -> Operands:
    w = weight(generator, rows, columns)
    select_n_of_m(Score(w), 2, 4)
    return {"x": products.inputs(generator, tokens, columns), "weight": w}


def _pack(o: Operands) -> Operands:
    packed = select_n_of_m(Score(o["weight"]), 2, 4, write=False, want="packed")
    return {"x": o["x"], "values": packed.values, "codes": packed.codes}


def _packed_of(o: Operands) -> Packed:
    return Packed(o["values"], o["codes"], 2, 4)


def _for_cusparselt(o: Operands) -> Operands:
    if not torch.backends.cusparselt.is_available():
        raise MissingError("this build of torch has no cuSPARSELt")
    return _for_torch(torch.sparse.SparseSemiStructuredTensorCUSPARSELT, o)


def _for_cutlass(o: Operands) -> Operands:
    return _for_torch(torch.sparse.SparseSemiStructuredTensorCUTLASS, products.needs_cuda(o))


def _for_torch(kind: type, o: Operands) -> Operands:
    sparse = kind.from_dense(o["weight"])
    # In a tuple it is not counted as the dense tensor that it claims to be; its storage is counted.
    return {"x": o["x"], "stored": sparse.packed, "sparse": (sparse,)}


def _torch_2_4(o: Operands) -> torch.Tensor:
    return F.linear(o["x"], o["sparse"][0])

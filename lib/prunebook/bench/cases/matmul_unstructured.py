"""The product with a weight that has zeros anywhere, stored as a bitmap, for few tokens."""

from itertools import product

import torch

from ...kernels.formats.bitmap import Bitmap, pack_bitmap
from ...kernels.formats.ell import Ell, pack_ell
from ...kernels.matmul.unstructured import ELL_TOKENS, linear_unstructured
from ...kernels.score import Score
from ...kernels.topk.rows import select_rows
from ...sparsity.patterns import count_removed
from .. import work
from ..case import Case, Operands, Provider
from ..record import OWN
from . import products
from .weights import DOWN, UP, weight

KERNEL = "product-unstructured"
_TOKENS = (1, 8, 32, 64)
_SPARSITIES = (0.5, 0.7, 0.8)


def cases() -> list[Case]:
    """The cases of this family."""
    by_sparsity = []
    for sparsity, shape, tokens in product(_SPARSITIES, (UP, DOWN), _TOKENS):
        rank = int(tokens != 1) + int(shape != UP) + int(sparsity == 0.8)
        by_sparsity.append(case(tokens, *shape, sparsity, rank))
    return by_sparsity


def case(tokens: int, rows: int, columns: int, sparsity: float, rank: int) -> Case:
    """The case of one number of tokens, shape of the weight and sparsity of its rows."""
    providers = [
        Provider(
            "prunebook", lambda o: linear_unstructured(o["x"], _bitmap_of(o)), prepare=_as_bitmap
        ),
        *products.dense(),
        Provider("torch CSR, cuSPARSE", _csr_product, prepare=_as_csr, note="with 32-bit indices"),
    ]
    if tokens <= ELL_TOKENS:
        ell = Provider(
            "prunebook, ELL",
            lambda o: linear_unstructured(o["x"], _ell_of(o)),
            prepare=_as_ell,
            role=OWN,
            note="eight-bit deltas between entries, 24 bits a weight that is not zero",
        )
        providers.append(ell)
    moved = work.product_bitmap(tokens, rows, columns, columns - count_removed(columns, sparsity))
    return Case(
        KERNEL,
        {"tokens": tokens, "rows": rows, "columns": columns},
        moved,
        lambda generator: _operands(generator, tokens, rows, columns, sparsity),
        products.truth,
        products.error,
        providers,
        settings={"sparsity": sparsity},
        allowed=products.ALLOWED,
        rank=rank,
        seconds=10,
    )


def _operands(
    generator: torch.Generator, tokens: int, rows: int, columns: int, sparsity: float
) -> Operands:
    """A weight without the smallest of each row, and inputs."""
    w = weight(generator, rows, columns)
    select_rows(Score(w), count_removed(columns, sparsity))
    return {"x": products.inputs(generator, tokens, columns), "weight": w}


def _as_bitmap(o: Operands) -> Operands:
    packed = pack_bitmap(o["weight"])
    return {
        "x": o["x"],
        "values": packed.values,
        "bits": packed.bits,
        "starts": packed.starts,
        "width": packed.width,
    }


def _bitmap_of(o: Operands) -> Bitmap:
    return Bitmap(o["values"], o["bits"], o["starts"], o["width"])


def _as_ell(o: Operands) -> Operands:
    packed = pack_ell(o["weight"])
    return {"x": o["x"], "values": packed.values, "deltas": packed.deltas, "width": packed.width}


def _ell_of(o: Operands) -> Ell:
    return Ell(o["values"], o["deltas"], o["width"])


def _as_csr(o: Operands) -> Operands:
    w = products.needs_cuda(o)["weight"].to_sparse_csr()
    parts = {"rows": w.crow_indices().int(), "columns": w.col_indices().int(), "values": w.values()}
    # In a tuple it is not counted as the dense tensor that it claims to be; its parts are counted.
    return {
        "x": o["x"],
        **parts,
        "sparse": (torch.sparse_csr_tensor(*parts.values(), size=w.shape),),
    }


def _csr_product(o: Operands) -> torch.Tensor:
    return (o["sparse"][0] @ o["x"].T).T

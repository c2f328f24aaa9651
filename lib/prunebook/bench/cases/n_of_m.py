"""Score, select and pack n:m in one pass, beside Wanda's loop over groups and torch's own 2:4."""

from functools import partial

import torch

from ...kernels.formats.n_of_m import Packed, unpack_n_of_m
from ...kernels.topk.n_of_m import launch_n_of_m, select_n_of_m, select_n_of_m_reference
from .. import work
from ..case import Case, MissingError, Operands, Provider, share_different
from ..record import CONTROL
from .products import needs_cuda
from .weights import DOWN, SMALL, SQUARE, score_of, scored

KERNEL = "n-of-m"
# Allowed share of a weight's groups where ties are kept in another order.
_TIES = 0.01
_UNPACKED = "ties in any order; does not pack"


def cases() -> list[Case]:
    """The cases of this family."""
    wanda = [
        case(*shape, 2, 4, "wanda", rank=int(shape == SMALL)) for shape in (SQUARE, DOWN, SMALL)
    ]
    others = [case(*shape, 4, 8, "wanda", rank=1 + (shape != SQUARE)) for shape in (SQUARE, DOWN)]
    return [
        *wanda,
        *others,
        case(*SQUARE, 2, 4, "magnitude", rank=1),
        case(*SQUARE, 2, 4, "ria", rank=2),
    ]


def case(rows: int, columns: int, n: int, m: int, score: str, rank: int) -> Case:
    """The case of one shape, pattern n:m and score."""
    providers = [
        Provider("prunebook", partial(_ours, n, m), device=partial(_ours_on_device, n, m)),
        Provider(
            "Wanda's loop over groups",
            partial(_loop, n, m),
            allowed=_TIES,
            captures=False,
            note=_UNPACKED,
        ),
        Provider("torch.topk of all groups", partial(_topk, n, m), allowed=_TIES, note=_UNPACKED),
    ]
    if (n, m) == (2, 4):
        providers += [
            Provider(
                "torch.topk and to_sparse_semi_structured",
                _torch_packed,
                prepare=_needs_cusparselt,
                allowed=_TIES,
                captures=False,
                note="ties in any order",
            ),
            Provider(
                "torch's 4x4 tile kernel",
                _tile,
                prepare=needs_cuda,
                role=CONTROL,
                note="by magnitude, 2:4 both ways in tiles: another mask, so its result is not "
                "compared",
            ),
        ]
    return Case(
        KERNEL,
        {"rows": rows, "columns": columns},
        work.pack_n_of_m(rows, columns, n, m, score),
        lambda generator: scored(generator, rows, columns, score),
        partial(_reference, n, m),
        _error,
        providers,
        settings={"pattern": f"{n}:{m}", "score": score},
        written=("weight",),
        rank=rank,
        seconds=15,
    )


def _reference(n: int, m: int, o: Operands) -> torch.Tensor:
    select_n_of_m_reference(score_of(o), n, m, True, None)
    return o["weight"]


def _error(result: torch.Tensor | Packed, truth: torch.Tensor) -> float:
    if isinstance(result, Packed):
        result = unpack_n_of_m(result)
    return share_different(result.to_dense(), truth)


def _ours(n: int, m: int, o: Operands) -> Packed:
    return select_n_of_m(score_of(o), n, m, write=False, want="packed")


def _ours_on_device(n: int, m: int, o: Operands) -> Packed:
    return launch_n_of_m(score_of(o), n, m, False, "packed", check=False)


def _loop(n: int, m: int, o: Operands) -> torch.Tensor:
    score = score_of(o).dense()
    removed = torch.zeros_like(score, dtype=torch.bool)
    for first in range(0, score.shape[1], m):
        lowest = torch.topk(score[:, first : first + m], m - n, dim=1, largest=False).indices
        removed.scatter_(1, first + lowest, True)
    return o["weight"].masked_fill_(removed, 0)


def _topk(n: int, m: int, o: Operands) -> torch.Tensor:
    score = score_of(o).dense().unflatten(1, (-1, m))
    lowest = torch.topk(score, m - n, dim=2, largest=False, sorted=False).indices
    removed = torch.zeros_like(score, dtype=torch.bool).scatter_(2, lowest, True)
    return o["weight"].masked_fill_(removed.flatten(1), 0)


def _torch_packed(o: Operands) -> torch.Tensor:
    return torch.sparse.SparseSemiStructuredTensorCUSPARSELT.from_dense(_topk(2, 4, o))


def _tile(o: Operands) -> torch.Tensor:
    return torch._sparse_semi_structured_tile(o["weight"], use_cutlass=True)


def _needs_cusparselt(o: Operands) -> Operands:
    if not torch.backends.cusparselt.is_available():
        raise MissingError("this build of torch has no cuSPARSELt")
    return needs_cuda(o)

"""Score and exact selection in a whole layer, in place, beside `sort` and `kthvalue`."""

from functools import partial
from itertools import product

import torch

from ...kernels.topk.long import launch_long
from ...kernels.topk.rows import select_global, select_global_reference
from ...sparsity.patterns import count_removed
from .. import work
from ..case import Case, Operands, Provider, share_different
from .weights import DOWN, SMALL, SQUARE, score_of, scored

KERNEL = "select-layer"
# Allowed share of the layer's weights at the threshold: bfloat16 has few magnitudes.
_TIES = 0.01


def cases() -> list[Case]:
    """The cases of this family."""
    return [
        case(*shape, score, rank=(score != "magnitude") + (shape != SQUARE) + 1)
        for score, shape in product(("magnitude", "ria"), (SQUARE, DOWN, SMALL))
    ]


def case(rows: int, columns: int, score: str, rank: int) -> Case:
    """The case of one shape and score, half of whose weights go."""
    removed = count_removed(rows * columns, 0.5)
    providers = [
        Provider("prunebook", partial(_ours, removed), device=_ours_on_device),
        Provider(
            "torch.sort",
            partial(_sorted, removed),
            allowed=_TIES,
            note="the threshold of the official magnitude baseline; removes all ties",
        ),
        Provider(
            "torch.kthvalue", partial(_kthvalue, removed), allowed=_TIES, note="removes all ties"
        ),
    ]
    return Case(
        KERNEL,
        {"rows": rows, "columns": columns},
        work.select(rows, columns, score),
        lambda generator: (
            scored(generator, rows, columns, score)
            | {"removed": torch.tensor([removed], device=generator.device)}
        ),
        _reference,
        share_different,
        providers,
        settings={"score": score, "sparsity": 0.5},
        written=("weight",),
        rank=rank,
    )


def _reference(o: Operands) -> torch.Tensor:
    select_global_reference([score_of(o)], o["removed"], True, None)
    return o["weight"]


def _ours(removed: int, o: Operands) -> torch.Tensor:
    select_global([score_of(o)], removed)
    return o["weight"]


def _ours_on_device(o: Operands) -> torch.Tensor:
    launch_long([score_of(o)], o["removed"], True, None, check=False)
    return o["weight"]


def _sorted(removed: int, o: Operands) -> torch.Tensor:
    score = score_of(o).dense()
    return o["weight"].masked_fill_(score <= score.flatten().sort().values[removed - 1], 0)


def _kthvalue(removed: int, o: Operands) -> torch.Tensor:
    score = score_of(o).dense()
    return o["weight"].masked_fill_(score <= score.flatten().kthvalue(removed).values, 0)

"""Score and exact selection in each row, in place, beside a stable sort, `topk` and `kthvalue`."""

from functools import partial
from itertools import product

import torch

from ...kernels.topk.rows import select_rows, select_rows_reference
from ...kernels.topk.short import launch_short
from ...sparsity.patterns import count_removed
from .. import work
from ..case import Case, Operands, Provider, share_different
from .weights import DOWN, SMALL, SQUARE, UP, score_of, scored

KERNEL = "select-rows"
# Allowed share of a row's weights at its threshold: bfloat16 has few magnitudes.
_TIES = 0.01


def cases() -> list[Case]:
    """The cases of this family."""
    choices = product(("wanda", "ria", "magnitude"), (SQUARE, DOWN, UP, SMALL), (0.5, 0.7))
    normal = [
        case(*shape, score, sparsity, rank=_rank(shape, score, sparsity))
        for score, shape, sparsity in choices
    ]
    return [*normal, case(*SQUARE, "wanda", 0.5, rank=2, heavy=True)]


def _rank(shape: tuple[int, int], score: str, sparsity: float) -> int:
    return (score != "wanda") + (shape not in (SQUARE, DOWN)) + (sparsity != 0.5)


def case(
    rows: int, columns: int, score: str, sparsity: float, rank: int, heavy: bool = False
) -> Case:
    """The case of one shape, score and sparsity; `heavy`: with heavy-tailed weights."""
    removed = count_removed(columns, sparsity)
    settings = {"score": score, "sparsity": sparsity}
    if heavy:
        settings["weights"] = "heavy-tailed"
    providers = [
        Provider("prunebook", partial(_ours, removed), device=partial(_ours_on_device, removed)),
        Provider(
            "torch.sort and scatter",
            partial(_sorted, removed),
            note="the recipe of Wanda's official code",
        ),
        Provider("torch.topk", partial(_topk, removed), allowed=_TIES, note="ties in any order"),
        Provider(
            "torch.kthvalue", partial(_kthvalue, removed), allowed=_TIES, note="removes all ties"
        ),
    ]
    seconds = 5
    if rank == 0:
        seconds = 30
        compiled = torch.compile(partial(_kthvalue, removed), dynamic=False)
        note = "removes all ties; the first call compiles"
        providers.append(Provider("torch.kthvalue, compiled", compiled, allowed=_TIES, note=note))
    return Case(
        KERNEL,
        {"rows": rows, "columns": columns},
        work.select(rows, columns, score),
        lambda generator: (
            scored(generator, rows, columns, score, heavy)
            | {"removed": torch.full((rows,), removed, dtype=torch.int32, device=generator.device)}
        ),
        _reference,
        share_different,
        providers,
        written=("weight",),
        rank=rank,
        settings=settings,
        seconds=seconds,
    )


def _reference(o: Operands) -> torch.Tensor:
    select_rows_reference(score_of(o), o["removed"].long(), o["weight"].shape[1], True, None)
    return o["weight"]


def _ours(removed: int, o: Operands) -> torch.Tensor:
    select_rows(score_of(o), removed)
    return o["weight"]


def _ours_on_device(removed: int, o: Operands) -> torch.Tensor:
    launch_short(score_of(o), o["removed"], o["weight"].shape[1], True, None, check=False)
    return o["weight"]


def _sorted(removed: int, o: Operands) -> torch.Tensor:
    score = score_of(o).dense()
    mask = torch.zeros_like(score, dtype=torch.bool)
    indices = torch.sort(score, dim=-1, stable=True).indices[:, :removed]
    return o["weight"].masked_fill_(mask.scatter_(1, indices, True), 0)


def _topk(removed: int, o: Operands) -> torch.Tensor:
    score = score_of(o).dense()
    mask = torch.ones_like(score, dtype=torch.bool)
    indices = torch.topk(score, score.shape[1] - removed, dim=1, sorted=False).indices
    return o["weight"].masked_fill_(mask.scatter_(1, indices, False), 0)


def _kthvalue(removed: int, o: Operands) -> torch.Tensor:
    score = score_of(o).dense()
    return o["weight"].masked_fill_(score <= score.kthvalue(removed, dim=1, keepdim=True).values, 0)

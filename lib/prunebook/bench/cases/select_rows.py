"""Score and exact selection in each row, in place, beside what is usual: a stable sort, `topk`,
`kthvalue`."""

from functools import partial

import torch

from ...kernels.scores import factored_score
from ...kernels.select import select_rows, select_rows_reference
from ...kernels.select_short import launch_short
from ...sparsity.patterns import count_removed
from .. import work
from ..case import Case, Operands, Provider, share_different
from .weights import DOWN, SMALL, SQUARE, UP, factors, scored

KERNEL = "select-rows"
# the share of a row's weights that may be at its threshold: bfloat16 has few magnitudes
_TIES = 0.01


def cases() -> list[Case]:
    found = [
        case(*shape, score, sparsity, rank=_rank(shape, score, sparsity))
        for score in ("wanda", "ria", "magnitude")
        for shape in (SQUARE, DOWN, UP, SMALL)
        for sparsity in (0.5, 0.7)
    ]
    return [*found, case(*SQUARE, "wanda", 0.5, rank=2, heavy=True)]


def _rank(shape, score, sparsity) -> int:
    return (score != "wanda") + (shape not in (SQUARE, DOWN)) + (sparsity != 0.5)


def case(
    rows: int, columns: int, score: str, sparsity: float, rank: int, heavy: bool = False
) -> Case:
    removed = count_removed(columns, sparsity)
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
    if rank == 0:
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
        settings={"score": score, "sparsity": sparsity}
        | ({"weights": "heavy-tailed"} if heavy else {}),
        seconds=30 if rank == 0 else 5,
    )


def _reference(o: Operands) -> torch.Tensor:
    select_rows_reference(
        o["weight"], o["removed"].long(), factors(o), o["weight"].shape[1], True, None
    )
    return o["weight"]


def _ours(removed: int, o: Operands) -> torch.Tensor:
    select_rows(o["weight"], removed, factors(o))
    return o["weight"]


def _ours_on_device(removed: int, o: Operands) -> torch.Tensor:
    launch_short(
        o["weight"], o["removed"], factors(o), o["weight"].shape[1], True, None, check=False
    )
    return o["weight"]


def _sorted(removed: int, o: Operands) -> torch.Tensor:
    score = factored_score(o["weight"], factors(o))
    gone = torch.zeros_like(score, dtype=torch.bool)
    indices = torch.sort(score, dim=-1, stable=True).indices[:, :removed]
    return o["weight"].masked_fill_(gone.scatter_(1, indices, True), 0)


def _topk(removed: int, o: Operands) -> torch.Tensor:
    score = factored_score(o["weight"], factors(o))
    gone = torch.ones_like(score, dtype=torch.bool)
    indices = torch.topk(score, score.shape[1] - removed, dim=1, sorted=False).indices
    return o["weight"].masked_fill_(gone.scatter_(1, indices, False), 0)


def _kthvalue(removed: int, o: Operands) -> torch.Tensor:
    score = factored_score(o["weight"], factors(o))
    return o["weight"].masked_fill_(score <= score.kthvalue(removed, dim=1, keepdim=True).values, 0)

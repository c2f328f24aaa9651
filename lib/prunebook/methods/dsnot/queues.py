"""DSnoT's queues: which pruned weights of a row come back in turn, and which kept ones go for them.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df (`prune_DSnoT`), which sorts whole rows. T cycles
read at most T weights of a queue, so that only these are selected here; their order, ties included,
is that of its stable sorts.

Tables `[2, out, T]` hold two queues for each row: the first is read while e < 0, the second while
e > 0, where e is the sum of D over the row's pruned weights.
"""

import operator
from dataclasses import dataclass, fields

import torch

from ...kernels.masking import count_rows, mask_where, masked_copy, places_of
from ...kernels.topk.rows import keep_largest
from .as_released import released_pruning_queues


@dataclass(frozen=True)
class SwapQueues:
    """What the rows of a weight may swap, pair by pair.

    regrown: columns of the pruned weights that come back, int64 `[2, out, T]`.
    pruned: columns of the kept weights that go in exchange, int64 `[2, out, T]`.
    pairs_available: number of pairs, int64 `[2, out]`; entries behind them are not used.
    D_regrown: D of the weights that come back, float32 `[2, out, T]`.
    D_pruned: D of the weights that go, float32 `[2, out, T]`.
    """

    regrown: torch.Tensor
    pruned: torch.Tensor
    pairs_available: torch.Tensor
    D_regrown: torch.Tensor
    D_pruned: torch.Tensor


def make_queues(
    D: torch.Tensor,
    keep: torch.Tensor,
    powered_variance: torch.Tensor,
    scores: torch.Tensor,
    *,
    cycles: int,
    group: int | None = None,
    released: bool = False,
) -> SwapQueues:
    """The queues of some rows.

    Args:
        D: `[out, in]`, see `expected_change`.
        keep: bool `[out, in]`, the first mask, True where kept.
        powered_variance: v^p, `[in]`.
        scores: `[out, in]`; of the kept weights the lowest goes first.
        cycles: T, at most the number of inputs.
        group: m, for an n:m mask: what goes is of the same m weights as what comes back.
        released: fill queues that are too short as the released code does; not with `group`.
    """
    regrown, regrown_available = regrowing_queues(D / powered_variance, D, keep, cycles)
    # A swap needs a weight that comes back and one that goes: the shorter queue ends the row.
    if group is None:
        pruned, pruned_available = pruning_queues(scores, D, keep, cycles)
    else:
        pruned, pruned_available = partners_in_group(regrown, scores, keep, group)
    pairs_available = torch.minimum(pruned_available, regrown_available)
    if released:
        # Rows whose queues do not last for all cycles.
        short = (pairs_available < cycles).any(0).nonzero()[:, 0]
        pruned[:, short] = released_pruning_queues(D[short], keep[short], scores[short], cycles)
        pairs_available = torch.full_like(pairs_available, cycles)
    return SwapQueues(regrown, pruned, pairs_available, _gather(D, regrown), _gather(D, pruned))


def regrowing_queues(
    ratio: torch.Tensor, D: torch.Tensor, keep: torch.Tensor, cycles: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pruned weights that come back: those with the sign of e, the largest `|D| / v^p` first.

    Args:
        ratio: `D / v^p`, `[out, in]`.
        D: `[out, in]`; a weight with D = 0 never comes back.
        keep: bool `[out, in]`, True where kept.
        cycles: T.

    Returns:
        Columns, int64 `[2, out, T]`, and how many there are, int64 `[2, out]`.
    """
    has_sign = mask_where(operator.lt, D, 0) | mask_where(operator.gt, D, 0)
    ratio = masked_copy(ratio, ~keep & has_sign)
    # While e < 0: the lowest ratios, ascending.
    most_negative = lowest(ratio, cycles)
    # While e > 0: the highest ratios, descending. Flip and negate to select the highest; ties then
    # go to the last column, as in the official code.
    most_positive = D.shape[1] - 1 - lowest(ratio.neg().flip(1), cycles)
    available = [count_rows(mask_where(sign, ratio, 0)) for sign in (operator.lt, operator.gt)]
    return torch.stack([most_negative, most_positive]), torch.stack(available)


def pruning_queues(
    scores: torch.Tensor, D: torch.Tensor, keep: torch.Tensor, cycles: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kept weights that go: those whose D has the other sign than e, lowest score first.

    Args:
        scores: Wanda's, `[out, in]`.
        D: `[out, in]`.
        keep: bool `[out, in]`, True where kept.
        cycles: T.

    Returns:
        Columns, int64 `[2, out, T]`, and how many there are, int64 `[2, out]`.
    """
    columns = []
    counts = []
    # While e < 0 a weight with D > 0 goes, and the other way round: both move e towards 0.
    for sign in (operator.gt, operator.lt):
        candidates = keep & mask_where(sign, D, 0)
        columns.append(lowest(masked_copy(scores, candidates, torch.inf), cycles))
        counts.append(count_rows(candidates))
    return torch.stack(columns), torch.stack(counts)


def partners_in_group(
    regrown: torch.Tensor, scores: torch.Tensor, keep: torch.Tensor, group: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """For n:m: the kept weight of its own group that goes for each weight that comes back.

    The lowest score of the group goes for the first weight of the group in a queue, the second
    lowest for the second, and so on.

    Args:
        regrown: columns, int64 `[2, out, T]`.
        scores: `[out, in]`.
        keep: bool `[out, in]`, True where kept.
        group: m.

    Returns:
        Columns, int64 `[2, out, T]`, and the length of the queue up to the first entry without a
        partner, int64 `[2, out]`.
    """
    columns = []
    with_partner = []
    for queue in regrown:
        group_of = queue // group
        # how many earlier entries of the queue are of the same group
        same_group = group_of[:, :, None] == group_of[:, None, :]
        earlier = same_group.tril(-1).sum(2).clamp(max=group - 1)[..., None]
        # the kept weights of the group, by score
        members = group_of[..., None] * group + torch.arange(group, device=queue.device)
        kept_scores = masked_copy(scores, keep, torch.inf).gather(1, members.flatten(1))
        ascending, place = kept_scores.view(members.shape).sort(dim=2, stable=True)
        has_partner = (ascending.gather(2, earlier) < torch.inf)[..., 0]
        columns.append(members.gather(2, place.gather(2, earlier))[..., 0])
        with_partner.append(has_partner.long().cumprod(1).sum(1))
    return torch.stack(columns), torch.stack(with_partner)


def lowest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Columns of the lowest values of each row, ascending, among equal values by column.

    Args:
        values: `[out, in]`.
        count: how many columns of each row.

    Returns:
        int64 `[out, count]`.
    """
    # What `keep_largest` removes is what is looked for.
    places = places_of(~keep_largest(values, removed=count))
    columns = places.view(len(values), count) % values.shape[1]
    return columns.gather(1, values.gather(1, columns).argsort(dim=1, stable=True))


def join_rows(parts: list[SwapQueues]) -> SwapQueues:
    """The queues of all rows, from those of consecutive rows."""
    # All tables have the rows in their second dimension.
    tables = {}
    for table in fields(SwapQueues):
        tables[table.name] = torch.cat([getattr(part, table.name) for part in parts], dim=1)
    return SwapQueues(**tables)


def _gather(D: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """D of queued columns, `[2, out, T]`."""
    return torch.stack([D.gather(1, queue) for queue in columns])

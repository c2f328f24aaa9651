"""Refine a mask by swaps within rows: a pruned weight comes back, a kept one goes, and the expected
output moves less.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df (`prune_DSnoT`), which sorts whole rows. Of a
queue only the first T weights can be used, so that they are selected here; their order, ties
included, is that of its stable sorts.
"""

import operator

import torch

from ...criteria.wanda import wanda_score
from ...errors import UserError
from ...kernels.masking import count_rows, mask_where, masked_copy, places_of
from ...kernels.select import keep_largest
from .moments import InputMoments, expected_change

# Weights of the rows whose queues are made at a time, so that what is computed on the way stays in
# cache on the CPU.
_WEIGHTS = {"cpu": 2**17, "cuda": 2**25}


@torch.no_grad()
def refine_mask(
    weight: torch.Tensor,
    keep: torch.Tensor,
    statistic: InputMoments,
    *,
    spread: torch.Tensor | None = None,
    group: int | None = None,
    scores: torch.Tensor | None = None,
    cycles: int = 50,
    threshold: float = 0.1,
    overshoot: bool = True,
    go_on: bool = False,
) -> torch.Tensor:
    """Swap weights of any mask, each row on its own: a cycle brings one back and prunes one, and
    none moves twice.

    With `e` the sum of D over the row's pruned weights: of those with the sign of e, the one with
    the largest `|D| / spread` comes back; of the kept ones with the other sign, the one with the
    lowest Wanda score goes. A row stops for good once `|e|` is at most the threshold, or when a
    queue is empty.

    Args:
        weight: `[out, in]`.
        keep: bool `[out, in]`, the start, True where kept.
        statistic: of the inputs.
        spread: `[in]`; by default the pooled variance.
        group: m, for an n:m mask: the lowest of `scores` in the same m weights goes, of either
            sign.
        scores: `[out, in]`, those of the start; by default Wanda's. Only for `group`.
        cycles: T, swaps of a row at most.
        threshold: of |e|, in sums over a sequence.
        overshoot: whether a swap may change the sign of e; if not, and always with `group`, the row
            stops before it.
        go_on: do as the official code where a queue is empty, see `_beyond`; not with `group`.

    Returns:
        The new mask `[out, in]`; every row, and every group of m, keeps as many weights as before,
        but for `go_on`.

    Raises:
        UserError: norms or sums of inputs that are not finite.
    """
    spread = statistic.variance() if spread is None else spread
    norm = statistic.norm()
    if not (norm.isfinite().all() and statistic.sums.isfinite().all()):
        raise UserError(
            "norms or sums of inputs are not finite; use calibration text that the model can "
            "process"
        )
    length = min(cycles, len(norm))
    rows = max(1, _WEIGHTS.get(weight.device.type, 2**17) // len(norm))
    scores = None if group is None else scores
    tables = []
    for i in range(0, len(weight), rows):
        part = weight[i : i + rows]
        mask = keep[i : i + rows]
        D = expected_change(part, statistic.sums)
        score = wanda_score(part, norm) if scores is None else scores[i : i + rows]
        back, gone, many = _queues(D, mask, D / spread, score, group, length)
        if go_on:
            short = (many < length).any(0).nonzero()[:, 0]
            gone[:, short] = _beyond(D[short], mask[short], score[short], length)
            many = torch.full_like(many, length)
        changes = (
            torch.stack([D.gather(1, columns) for columns in queue]) for queue in (gone, back)
        )
        tables.append((back, gone, many, masked_copy(D, ~mask).sum(1)[None], *changes))
    back, gone, many, error, *changes = (
        torch.cat(table, dim=1) for table in zip(*tables, strict=True)
    )
    refined = keep.clone()
    _swap(
        refined, error[0], back, gone, many, *changes, threshold, overshoot and group is None, go_on
    )
    return refined


def _queues(D, keep, order, scores, group: int | None, length: int) -> tuple[torch.Tensor, ...]:
    """Pairs to swap, in turn, while e < 0 and while e > 0: columns that come back and that go, `[2,
    out, T]`, and how many there are, `[2, out]`. Args: order, by which weights come back, and
    scores, by which they go, `[out, in]`."""
    negative = mask_where(operator.lt, D, 0)
    positive = mask_where(operator.gt, D, 0)
    order = masked_copy(order, ~keep & (negative | positive))
    # The highest, of equal ones the last first: the lowest of what is mirrored twice.
    ends = _lowest(order, length), D.shape[1] - 1 - _lowest(order.neg().flip(1), length)
    pairs = []
    sides = mask_where(operator.lt, order, 0), mask_where(operator.gt, order, 0)
    for back, same, other in zip(ends, sides, (positive, negative), strict=True):
        if group is None:
            candidates = keep & other
            gone = _lowest(masked_copy(scores, candidates, torch.inf), length)
            many = count_rows(candidates)
        else:
            gone, many = _partners(back, scores, keep, group)
        pairs.append((back, gone, torch.minimum(many, count_rows(same))))
    return tuple(torch.stack(tables) for tables in zip(*pairs, strict=True))


def _swap(
    mask, error, back, gone, many, D_gone, D_back, threshold: float, overshoot: bool, go_on: bool
):
    """The cycles of all rows at once, in `mask [out, in]`; returns e afterwards.

    Args:
        error: e, `[out]`.
        back, gone, many: see `_queues`.
        D_gone, D_back: D of what is in the queues, `[2, out, T]`.
    """
    row = torch.arange(len(error), device=error.device)
    start = error.sign()
    active = torch.ones_like(row, dtype=torch.bool)
    done = torch.zeros_like(many)
    for _ in range(D_back.shape[2]):
        side = (error > 0).long()
        k = done[side, row]
        after = error + D_gone[side, row, k] - D_back[side, row, k]
        active = active & (error.abs() > threshold) & (k < many[side, row])
        if not overshoot:
            active &= after.sign() == start
        # there, a row that has stopped still resets what is next
        rows = row if go_on else active.nonzero()[:, 0]
        here = (side[rows], rows, k[rows])
        swap = active[rows]
        mask[rows, gone[here]] = ~swap
        mask[rows, back[here]] = swap
        error = torch.where(active, after, error)
        done[here[:2]] += 1
        if not active.any():
            break
    return error


def _beyond(D, keep, scores, length: int) -> torch.Tensor:
    """What goes in the official code, which never runs out of it: the queue; then, for each kept
    weight with D = 0, the lowest of all; then those with the sign of e, highest first. After what
    can come back follow the weights with D = 0 and the kept ones, so that a row may lose or gain
    weights. Columns, for e < 0 and for e > 0, `[2, out, T]`."""
    order = scores.masked_fill(~keep, torch.inf).argsort(dim=1, stable=True)
    place = torch.arange(D.shape[1], device=D.device)
    width = D.shape[1]
    sign = D.gather(1, order).sign()
    queues = []
    for wanted in (sign, -sign):
        turn = torch.where(wanted > 0, place, torch.where(wanted < 0, 2 * width - place, width))
        queue = turn.masked_fill(~keep.gather(1, order), 3 * width).argsort(dim=1, stable=True)[
            :, :length
        ]
        queues.append(order.gather(1, queue.masked_fill(wanted.gather(1, queue) == 0, 0)))
    return torch.stack(queues)


def _lowest(values: torch.Tensor, length: int) -> torch.Tensor:
    """Columns of the lowest values of each row, ascending, of equal ones the first first: `[out,
    in]` -> `[out, T]`."""
    columns = places_of(~keep_largest(values, length)).view(len(values), length) % values.shape[1]
    return columns.gather(1, values.gather(1, columns).argsort(dim=1, stable=True))


def _partners(back: torch.Tensor, scores: torch.Tensor, keep: torch.Tensor, group: int):
    """For each of a queue's columns `[out, T]` the kept one of its group that goes in exchange:
    lowest score first, the second lowest for the second column of a group, and so on; and how many
    have one before one has none, `[out]`."""
    mine = back // group
    rank = (mine[:, :, None] == mine[:, None, :]).tril(-1).sum(2).clamp(max=group - 1)[..., None]
    members = mine[..., None] * group + torch.arange(group, device=back.device)
    left = masked_copy(scores, keep, torch.inf).gather(1, members.flatten(1)).view(members.shape)
    left, place = left.sort(dim=2, stable=True)
    has_one = (left.gather(2, rank) < torch.inf)[..., 0]
    return members.gather(2, place.gather(2, rank))[..., 0], has_one.long().cumprod(1).sum(1)

"""Order of input channels for n:m: spread what the pattern would lose over its groups.

Zhang et al., Plug-and-Play (RIA, ICLR 2024), channel permutation: heuristic allocation, then a
linear sum assignment for each slot of the groups; official code
biomedical-cybernetics/Relative-importance-and-activation-pruning at 7bc55b0. An order is int64
`[in]`: position p of the permuted weight holds column `order[p]`.
"""

from collections.abc import Iterable

import torch
from scipy.optimize import linear_sum_assignment

from ...sparsity.patterns import NofM, check_width, keep_mask

_ROWS = 512  # of scores at a time, so that all candidates' stay in the caches of a CPU


def retained(scores: torch.Tensor, order: torch.Tensor, pattern: NofM) -> float:
    """Phi: the total score that n:m keeps of `scores [rows, in]` when its columns stand in this
    order."""
    permuted = scores[:, order]
    return permuted[keep_mask(permuted, pattern)].sum(dtype=torch.float64).item()


def allocate_channels(importance: torch.Tensor, m: int) -> torch.Tensor:
    """Heuristic allocation: columns sorted by importance, cut into m chunks, dealt to the groups
    like a snake.

    Args:
        importance: `[in]`, of each column, as the sum of its scores.
        m: size of a group; it divides `in`.

    Returns:
        The order, int64 `[in]`: every group gets one channel of each chunk.
    """
    chunks = importance.argsort(stable=True).view(m, -1).clone()
    chunks[1::2] = chunks[1::2].flip(1)
    return chunks.T.reshape(-1)


def assign_channels(
    scores: Iterable[torch.Tensor], order: torch.Tensor, pattern: NofM
) -> torch.Tensor:
    """One sweep of linear sum assignments: for each slot of the groups, deal its channels out anew,
    the other m - 1 channels of every group held. Phi never falls.

    A group that keeps n of its own others and a candidate x retains, in a row, a constant plus
    max(t, x), where t is the n-th largest of the others; and max(t, x) = (t + x + |t - x|) / 2,
    whose first two terms no assignment changes. So the gain of candidate i in group j is an l1
    distance over the rows.

    Args:
        scores: the score matrices `[rows, in]` that share the order; iterated over once for each
            slot.
        order: int64 `[in]` to begin with.

    Returns:
        The order, int64 `[in]`, on the CPU.
    """
    order = order.cpu().clone()
    groups = order.view(-1, pattern.m)
    for slot in range(pattern.m):
        others = [other for other in range(pattern.m) if other != slot]
        gain = torch.zeros(len(groups), len(groups), dtype=torch.float64)
        for part in scores:
            columns = groups.to(part.device)
            channels = part.T.contiguous()  # one channel is one piece of memory
            threshold = _nth_largest([channels[columns[:, other]] for other in others], pattern.n)
            gain += _distances(threshold, channels[columns[:, slot]]).cpu()
        _, chosen = linear_sum_assignment(gain.numpy(), maximize=True)
        groups[:, slot] = groups[torch.from_numpy(chosen), slot]
    return order


def _distances(threshold: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """`sum_r |t_jr - x_ir|` for each group j and candidate i.

    Args:
        threshold: t, float32 `[groups, rows]`.
        candidate: x, float32 `[candidates, rows]`.

    Returns:
        float64 `[groups, candidates]`.
    """
    if threshold.device.type != "cpu":
        return torch.cdist(threshold, candidate, p=1).double()
    # |t - x| = 2 max(t, x) - t - x: on a CPU two vectorised passes over what its caches hold take
    # half the time.
    larger_sums = threshold.new_zeros(len(threshold), len(candidate))
    for t, x in zip(threshold.split(_ROWS, 1), candidate.split(_ROWS, 1), strict=True):
        x, ones = x.contiguous(), x.new_ones(x.shape[1])
        larger = torch.empty_like(x)
        for sums, one in zip(larger_sums, t, strict=True):
            torch.maximum(x, one, out=larger)
            sums.addmv_(larger, ones)
    totals = [part.sum(1, dtype=torch.float64) for part in (threshold, candidate)]
    return 2 * larger_sums.double() - totals[0][:, None] - totals[1]


def _nth_largest(tensors: list[torch.Tensor], n: int) -> torch.Tensor:
    """The n-th largest of a few tensors of one shape, entry by entry: n rounds of a bubble sort,
    many times faster than a selection along a short dimension."""
    tensors = list(tensors)
    for round_ in range(n):
        for i in range(len(tensors) - 1, round_, -1):
            below = tensors[i]
            above = tensors[i - 1]
            tensors[i - 1], tensors[i] = torch.maximum(below, above), torch.minimum(below, above)
    return tensors[n - 1]


def best_order(scores: Iterable[torch.Tensor], pattern: NofM) -> torch.Tensor:
    """Heuristic allocation, then one sweep of assignments, for matrices `[rows, in]` that share
    their inputs.

    Raises:
        UserError: n:m does not divide the number of inputs.
    """
    importance = sum(part.sum(0).cpu() for part in scores)
    check_width(len(importance), pattern, "the score")
    return assign_channels(scores, allocate_channels(importance, pattern.m), pattern)


def keep_mask_permuted(scores: torch.Tensor, pattern: NofM) -> torch.Tensor:
    """The n:m mask of the permuted columns, mapped back to their places: bool `[out, in]`, True
    where kept.

    The pattern holds in the permuted order only.
    """
    order = best_order([scores], pattern).to(scores.device)
    keep = torch.empty_like(scores, dtype=torch.bool)
    keep[:, order] = keep_mask(scores[:, order], pattern)
    return keep

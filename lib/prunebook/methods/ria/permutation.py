"""Channel permutation for n:m: spread the important input channels over the groups.

Zhang et al., Plug-and-Play (RIA, ICLR 2024): heuristic channel allocation, then a linear sum
assignment for each slot of the groups; official code
biomedical-cybernetics/Relative-importance-and-activation-pruning at 7bc55b0. An order is int64
`[in]`: position p of the permuted weight holds column `order[p]`.
"""

from collections.abc import Iterable

import torch
from scipy.optimize import linear_sum_assignment

from ...sparsity.patterns import NofM, check_width, keep_mask
from .slot_gains import distances, nth_largest


def retained(scores: torch.Tensor, order: torch.Tensor, pattern: NofM) -> float:
    """Phi: the total score that n:m keeps when the columns stand in an order.

    Args:
        scores: `[rows, in]`.
        order: int64 `[in]`.
        pattern: n:m.
    """
    permuted = scores[:, order]
    return permuted[keep_mask(permuted, pattern)].sum(dtype=torch.float64).item()


def best_order(scores: Iterable[torch.Tensor], pattern: NofM) -> torch.Tensor:
    """Heuristic allocation, then one sweep of assignments.

    Args:
        scores: matrices `[rows, in]` that share their inputs; iterated over several times.
        pattern: n:m.

    Returns:
        The order, int64 `[in]`, on the CPU.

    Raises:
        UserError: n:m does not divide the number of inputs.
    """
    # The importance of a column is the sum of its scores.
    importance = sum(part.sum(0).cpu() for part in scores)
    check_width(len(importance), pattern, "the score")
    return assign_channels(scores, allocate_channels(importance, pattern.m), pattern)


def allocate_channels(importance: torch.Tensor, m: int) -> torch.Tensor:
    """Heuristic allocation: deal the sorted columns to the groups in snake order.

    Args:
        importance: importance of each column, `[in]`.
        m: size of a group; it divides `in`.

    Returns:
        The order, int64 `[in]`: every group gets one channel of each of m chunks.
    """
    # Ascending, in m chunks: chunk q is dealt to slot q of all groups.
    chunks = importance.argsort(stable=True).view(m, -1).clone()
    # Every second chunk is dealt backwards, so that each group gets channels of all strengths.
    chunks[1::2] = chunks[1::2].flip(1)
    return chunks.T.reshape(-1)


def assign_channels(
    scores: Iterable[torch.Tensor], order: torch.Tensor, pattern: NofM
) -> torch.Tensor:
    """One sweep of linear sum assignments; Phi never falls.

    For each slot of the groups its channels are dealt out anew, while the other m - 1 channels of
    every group are held. A group that keeps n of its own others and a candidate x retains, in a
    row, a constant plus max(t, x), where t is the n-th largest of the others. In max(t, x) =
    (t + x + |t - x|) / 2 no assignment changes the first two terms, so that the gain of candidate i
    in group j is an l1 distance over the rows.

    Args:
        scores: the score matrices `[rows, in]` that share the order; iterated over once for each
            slot.
        order: int64 `[in]` to begin with.
        pattern: n:m.

    Returns:
        The order, int64 `[in]`, on the CPU.
    """
    order = order.cpu().clone()
    groups = order.view(-1, pattern.m)
    for slot in range(pattern.m):
        others = [other for other in range(pattern.m) if other != slot]
        # S_ji: what group j gains from candidate i, summed over the rows of all matrices.
        gain = torch.zeros(len(groups), len(groups), dtype=torch.float64)
        for part in scores:
            columns = groups.to(part.device)
            # Transposed, so that one channel is contiguous.
            channels = part.T.contiguous()
            threshold = nth_largest([channels[columns[:, other]] for other in others], pattern.n)
            gain += distances(threshold, channels[columns[:, slot]]).cpu()
        # The Hungarian assignment; leaving everything in place is one of its choices.
        _, chosen = linear_sum_assignment(gain.numpy(), maximize=True)
        groups[:, slot] = groups[torch.from_numpy(chosen), slot]
    return order


def keep_mask_permuted(scores: torch.Tensor, pattern: NofM) -> torch.Tensor:
    """The n:m mask of the columns in their best order, mapped back to their places.

    The pattern holds in the permuted order only.

    Args:
        scores: `[out, in]`.
        pattern: n:m.

    Returns:
        bool `[out, in]`, True where kept.
    """
    order = best_order([scores], pattern).to(scores.device)
    keep = torch.empty_like(scores, dtype=torch.bool)
    keep[:, order] = keep_mask(scores[:, order], pattern)
    return keep

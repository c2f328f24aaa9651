"""The numbers behind RIA's assignment of channels, computed fast.

Zhang et al., Plug-and-Play (RIA, ICLR 2024). What they are for is said in `permutation`, which can
be read without this.
"""

from collections.abc import Sequence

import torch

# Distances are summed over this many rows of scores at a time; those of all candidates then stay in
# the caches of a CPU.
_ROWS_AT_ONCE = 512


def distances(threshold: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """`sum_r |t_jr - x_ir|` for each group j and candidate i.

    Args:
        threshold: t, float32 `[groups, rows]`.
        candidate: x, float32 `[candidates, rows]`.

    Returns:
        float64 `[groups, candidates]`.
    """
    if threshold.device.type != "cpu":
        return torch.cdist(threshold, candidate, p=1).double()
    # |t - x| = 2 max(t, x) - t - x. On a CPU two vectorised passes over what its caches hold take
    # half the time of a distance.
    larger_sums = threshold.new_zeros(len(threshold), len(candidate))
    parts = zip(threshold.split(_ROWS_AT_ONCE, 1), candidate.split(_ROWS_AT_ONCE, 1), strict=True)
    for t, x in parts:
        x = x.contiguous()
        ones = x.new_ones(x.shape[1])
        larger = torch.empty_like(x)
        # sum_r max(t_jr, x_ir), one group at a time
        for sums, t_of_group in zip(larger_sums, t, strict=True):
            torch.maximum(x, t_of_group, out=larger)
            sums.addmv_(larger, ones)
    threshold_sums = threshold.sum(1, dtype=torch.float64)
    candidate_sums = candidate.sum(1, dtype=torch.float64)
    return 2 * larger_sums.double() - threshold_sums[:, None] - candidate_sums


def nth_largest(tensors: Sequence[torch.Tensor], n: int) -> torch.Tensor:
    """The n-th largest of a few tensors of one shape, entry by entry.

    n rounds of a bubble sort are many times faster than a selection along a short dimension.

    Args:
        tensors: tensors of one shape, n of them or more.
        n: 1 for the largest.
    """
    tensors = list(tensors)
    for bubbled in range(n):
        # The largest of those that are left rises to place `bubbled`.
        for i in range(len(tensors) - 1, bubbled, -1):
            larger = torch.maximum(tensors[i], tensors[i - 1])
            smaller = torch.minimum(tensors[i], tensors[i - 1])
            tensors[i - 1] = larger
            tensors[i] = smaller
    return tensors[n - 1]

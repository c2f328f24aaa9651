"""DSnoT's swaps: in each row pruned weights come back and kept ones go until e is small.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df (`prune_DSnoT`). e is the expected change of a
row's output: the sum of `D_ij = W_ij s_j` over its pruned weights.
"""

import torch

from ...criteria.wanda import wanda_score
from ...errors import UserError
from ...kernels.masking import masked_copy
from .moments import InputMoments, expected_change
from .queues import SwapQueues, join_rows, make_queues

# Queues are made for rows of this many weights at a time; on a CPU, what is computed on the way
# then stays in its caches.
_WEIGHTS_AT_ONCE = {"cpu": 2**17, "cuda": 2**25}


@torch.no_grad()
def refine_mask(
    weight: torch.Tensor,
    keep: torch.Tensor,
    statistic: InputMoments,
    *,
    powered_variance: torch.Tensor | None = None,
    group: int | None = None,
    scores: torch.Tensor | None = None,
    cycles: int = 50,
    threshold: float = 0.1,
    overshoot: bool = True,
    released_queues: bool = False,
) -> torch.Tensor:
    """Swap weights of any mask, each row on its own.

    No weight moves twice, unless `released_queues`.

    Args:
        weight: `[out, in]`.
        keep: bool `[out, in]`, the first mask, True where kept.
        statistic: moments of the inputs.
        powered_variance: v^p, `[in]`; None for v, the variance itself.
        group: m of an n:m mask; what goes is then of the group of what comes back, of either sign.
        scores: `[out, in]`, by which kept weights of a `group` go; None for Wanda's.
        cycles: T, swaps of a row at most.
        threshold: a row stops where |e| is at most this, in sums over a sequence.
        overshoot: whether a swap may change the sign of e; never with `group`.
        released_queues: go on where a queue is empty, see `released_pruning_queues`; not with
            `group`. Only then do rows gain or lose weights.

    Returns:
        The new mask, bool `[out, in]`.

    Raises:
        UserError: norms or sums of inputs that are not finite.
    """
    _check_finite(statistic)
    if powered_variance is None:
        powered_variance = statistic.variance()
    options = {"cycles": cycles, "group": group, "released": released_queues}
    queues, error = queues_and_error(weight, keep, statistic, powered_variance, scores, **options)
    refined = keep.clone()
    overshoot = overshoot and group is None
    swap_weights(refined, error, queues, threshold, overshoot, released_queues)
    return refined


def queues_and_error(
    weight: torch.Tensor,
    keep: torch.Tensor,
    statistic: InputMoments,
    powered_variance: torch.Tensor,
    scores: torch.Tensor | None,
    *,
    cycles: int,
    group: int | None,
    released: bool,
) -> tuple[SwapQueues, torch.Tensor]:
    """What each row may swap, and its e under the first mask, a few rows at a time.

    Args:
        weight: as for `refine_mask`, like `keep`, `powered_variance`, `scores`, `cycles` and
            `group`.
        statistic: moments of the inputs.
        released: whether queues go on as in the released code, see `make_queues`.

    Returns:
        The queues of all rows, and e, `[out]`: the sum of D over the pruned weights of each row.
    """
    norm = statistic.norm()
    width = len(norm)
    rows_at_once = max(1, _WEIGHTS_AT_ONCE.get(weight.device.type, 2**17) // width)
    queues = []
    errors = []
    for start in range(0, len(weight), rows_at_once):
        chunk = slice(start, start + rows_at_once)
        # D_ij = W_ij s_j, and e, the sum of D over the pruned weights of a row
        D = expected_change(weight[chunk], statistic.sums)
        errors.append(masked_copy(D, ~keep[chunk]).sum(1))
        # Within a group the lowest score of the first mask goes, else the lowest of Wanda.
        if group is None or scores is None:
            score = wanda_score(weight[chunk], norm).dense()
        else:
            score = scores[chunk]
        queues.append(
            make_queues(
                D,
                keep[chunk],
                powered_variance,
                score,
                cycles=min(cycles, width),
                group=group,
                released=released,
            )
        )
    return join_rows(queues), torch.cat(errors)


def swap_weights(
    mask: torch.Tensor,
    error: torch.Tensor,
    queues: SwapQueues,
    threshold: float,
    overshoot: bool,
    released: bool,
) -> torch.Tensor:
    """Run the cycles of all rows at once.

    Args:
        mask: bool `[out, in]`, changed in place.
        error: e of each row, `[out]`.
        queues: what the rows may swap.
        threshold: a row stops where |e| is at most this.
        overshoot: whether a swap may change the sign of e; if not, the row stops before it.
        released: let rows that have stopped still move on in their queues, as the released code.

    Returns:
        e of each row afterwards, `[out]`.
    """
    every_row = torch.arange(len(error), device=error.device)
    first_sign = error.sign()
    active = torch.ones_like(every_row, dtype=torch.bool)
    used = torch.zeros_like(queues.pairs_available)
    for _ in range(queues.regrown.shape[2]):
        # The next pair of the queue for e < 0 (side 0) or for e > 0 (side 1).
        side = (error > 0).long()
        k = used[side, every_row]
        next_pair = (side, every_row, k)
        # e <- e + D_pruned - D_regrown
        after = error + queues.D_pruned[next_pair] - queues.D_regrown[next_pair]
        # A row stops for good at the threshold and at the end of a queue.
        active = active & (error.abs() > threshold) & (k < queues.pairs_available[side, every_row])
        if not overshoot:
            active &= after.sign() == first_sign
        written_rows = every_row
        if not released:
            written_rows = active.nonzero()[:, 0]
        # The weight that goes is masked, the one that comes back is kept. In the released code a
        # row that has stopped resets both to what they were.
        pair = (side[written_rows], written_rows, k[written_rows])
        swap = active[written_rows]
        mask[written_rows, queues.pruned[pair]] = ~swap
        mask[written_rows, queues.regrown[pair]] = swap
        error = torch.where(active, after, error)
        used[pair[:2]] += 1
        if not active.any():
            break
    return error


def _check_finite(statistic: InputMoments) -> None:
    """Raise a `UserError` unless norms and sums are finite."""
    if not (statistic.norm().isfinite().all() and statistic.sums.isfinite().all()):
        raise UserError(
            "norms or sums of inputs are not finite; use calibration text that the model can "
            "process"
        )

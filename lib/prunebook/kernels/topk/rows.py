"""Remove the k lowest-scored weights of each comparison group.

Score, exact selection and writing are one pass. Groups are rows or pieces of rows (`select_rows`),
or one or several whole layers (`select_global`). Nothing is sorted. `selection` holds the rule;
`select_short` and `select_long` are its kernels.
"""

from collections.abc import Sequence

import torch

from ...errors import UserError
from ..launch import runs_natively
from ..masking import apply_mask
from ..score import Score
from .long import MOST_GROUPS, launch_long
from .rule import Selection, finite_rows, keep_largest_reference, pack_bits, refuse_not_finite
from .short import LONGEST, launch_short


def keep_largest(scores: torch.Tensor, removed: int | torch.Tensor) -> torch.Tensor:
    """Keep all but the `removed` smallest scores of each row; equal scores go lowest index first.

    Args:
        scores: float32 or float64 `[groups, size]`, without NaN.
        removed: how many go from every row, or int64 `[groups]`, one count each.

    Returns:
        bool `[groups, size]`, True where kept.
    """
    short = scores.shape[1] <= LONGEST
    fits = scores.dtype == torch.float32 and (short or len(scores) <= MOST_GROUPS)
    if not fits or not runs_natively(scores):
        return keep_largest_reference(scores, removed)
    if not isinstance(removed, torch.Tensor):
        removed = torch.full((len(scores),), removed)
    score = Score(scores, given=True)
    if short:
        return launch_short(score, removed, scores.shape[1], False, "mask", check=False).mask
    return launch_long([score], removed, False, "mask", check=False)[0].mask


def select_rows(
    score: Score,
    removed: int | torch.Tensor,
    *,
    group: int | None = None,
    write: bool = True,
    want: str | None = None,
) -> Selection:
    """Remove the lowest-scored weights of each row, or of each `group` consecutive inputs.

    Args:
        score: score of a weight `[out, in]`.
        removed: how many go from every group, or int64 `[groups]`, one count each, groups in
            row-major order.
        group: inputs that are compared together, a divisor of `in`; None for all of a row.
        write: set what goes to zero in the weight, in place.
        want: 'mask' or 'bits' for what is kept, None for its counts alone.

    Raises:
        UserError: arguments that do not fit each other, or scores with NaN or infinity. Finite rows
            may then have been written.
    """
    rows, width = _check_score(score, want).shape
    groups = rows
    if group is None:
        group = width
    if group != width:
        if group < 1 or width % group:
            raise UserError(f"group {group} does not divide the {width} inputs of the weight")
        groups = rows * width // group
    removed = _check_counts(removed, groups, group)
    if runs_natively(*score.pointers()):
        if group <= LONGEST:
            return launch_short(score, removed, group, write, want)
        if group == width and rows <= MOST_GROUPS:
            return launch_long([score], removed, write, want)[0]
    return select_rows_reference(score, removed, group, write, want)


def select_rows_reference(
    score: Score, removed: torch.Tensor, group: int, write: bool, want: str | None
) -> Selection:
    """`select_rows` in torch, for checked arguments; it defines what the kernel computes."""
    scores = score.dense()
    refuse_not_finite(finite_rows(scores))
    if group:
        scores = scores.reshape(-1, group)
    keep = keep_largest_reference(scores, removed).view(score.shape)
    kept = (group - removed).to(scores.device, torch.int32)
    return _selection(score.weight, keep, kept, write, want)


def select_global(
    scores: Sequence[Score],
    removed: int,
    *,
    write: bool = True,
    want: str | None = None,
) -> list[Selection]:
    """Remove the lowest-scored weights of one or several layers, compared over all of them.

    Equal scores go in the order of the sequence, then by row and column.

    Args:
        scores: one score for each layer.
        removed: how many weights go in all.
        write: set what goes to zero in the weights, in place.
        want: 'mask' or 'bits' for what is kept, None for its counts alone.

    Returns:
        One selection for each layer, whose `kept` is `[1]`.

    Raises:
        UserError: arguments that do not fit each other, or scores with NaN or infinity. Nothing has
            been written then.
    """
    read = []
    for score in scores:
        _check_score(score, want)
        read += score.pointers()
    counts = _check_counts(removed, 1, sum(score.weight.numel() for score in scores))
    if scores and runs_natively(*read):
        return launch_long(scores, counts, write, want)
    return select_global_reference(scores, counts, write, want)


def select_global_reference(
    scores: Sequence[Score], removed: torch.Tensor, write: bool, want: str | None
) -> list[Selection]:
    """`select_global` in torch, for checked arguments; it defines what the kernels compute."""
    every = torch.cat([score.dense().flatten() for score in scores])[None]
    refuse_not_finite(finite_rows(every), rows=False)
    sizes = [score.weight.numel() for score in scores]
    pieces = keep_largest_reference(every, removed)[0].split(sizes)
    selections = []
    for score, piece in zip(scores, pieces, strict=True):
        kept = piece.count_nonzero()[None].int()
        selections.append(_selection(score.weight, piece.view(score.shape), kept, write, want))
    return selections


def _selection(
    weight: torch.Tensor, keep: torch.Tensor, kept: torch.Tensor, write: bool, want: str | None
) -> Selection:
    """Write the weight if asked to, and return what is wanted of the mask `keep`."""
    if write:
        apply_mask(weight, keep)
    if want == "mask":
        return Selection(kept, mask=keep)
    if want == "bits":
        return Selection(kept, bits=pack_bits(keep))
    return Selection(kept)


def _check_score(score: Score, want: str | None) -> Score:
    """The score, if it and `want` can be used."""
    score.check()
    if want not in (None, "mask", "bits"):
        raise UserError(f"want {want!r} is unknown; use 'mask', 'bits' or None")
    if not score.weight.is_floating_point():
        raise UserError(
            f"weight is {score.weight.dtype}; use a dtype of floating point, e.g. float32"
        )
    return score


def _check_counts(removed: int | torch.Tensor, groups: int, size: int) -> torch.Tensor:
    """The counts as int64 `[groups]`, each from 0 to the `size` of a group."""
    if not isinstance(removed, torch.Tensor):
        removed = torch.full((groups,), removed, dtype=torch.int64)
    if removed.shape != (groups,):
        raise UserError(f"removed has shape {list(removed.shape)}; {groups} groups need [{groups}]")
    if groups and not 0 <= int(removed.min()) <= int(removed.max()) <= size:
        raise UserError(
            f"removed reaches from {int(removed.min())} to {int(removed.max())}; allowed is 0 to "
            f"{size}"
        )
    return removed

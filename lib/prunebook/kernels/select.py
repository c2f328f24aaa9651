"""Remove the k lowest-scored weights of each comparison group: score, exact selection and writing
in one pass.

Groups are rows or pieces of them (`select_rows`), or one or several whole layers
(`select_together`). Nothing is sorted. `selection` holds the rule; `select_short` and `select_long`
are its kernels.
"""

from collections.abc import Sequence

import torch

from ..errors import UserError
from .launch import runs_natively
from .masking import apply_mask
from .scores import Factors, factored_score
from .select_long import MOST_GROUPS, launch_long
from .select_short import LONGEST, launch_short
from .selection import Selection, finite_rows, keep_largest_reference, pack_bits, refuse_not_finite


def keep_largest(scores: torch.Tensor, removed: int | torch.Tensor) -> torch.Tensor:
    """All but the `removed` smallest of each row; equal scores go lowest index first.

    Args:
        scores: `[groups, size]`, float32 or float64, no NaN.
        removed: how many go, or one count a row, `[groups]`.

    Returns:
        bool `[groups, size]`, True where kept.
    """
    short = scores.shape[1] <= LONGEST
    if (
        not runs_natively(scores)
        or scores.dtype != torch.float32
        or not (short or len(scores) <= MOST_GROUPS)
    ):
        return keep_largest_reference(scores, removed)
    if not isinstance(removed, torch.Tensor):
        removed = torch.full((len(scores),), removed)
    if short:
        return launch_short(scores, removed, None, scores.shape[1], False, "mask", check=False).mask
    return launch_long([scores], removed, [None], False, "mask", check=False)[0].mask


def select_rows(
    weight: torch.Tensor,
    removed: int | torch.Tensor,
    factors: Factors = Factors(),
    *,
    group: int | None = None,
    write: bool = True,
    want: str | None = None,
) -> Selection:
    """Remove the lowest-scored weights of each row, or of each `group` consecutive inputs.

    Args:
        weight: `[out, in]`, of any float dtype and any strides.
        removed: how many go from every group, or int64 `[groups]`, one count each, groups in
            row-major order.
        factors: of the score; by default it is the magnitude.
        group: inputs that are compared together, a divisor of `in`.
        write: set what goes to zero in `weight`, in place.
        want: 'mask' or 'bits' for what is kept, None for its counts alone.

    Raises:
        UserError: arguments that do not fit each other, or scores with NaN or infinity; rows
            without may then have been written.
    """
    width = _check_weight(weight, factors, want).shape[1]
    group = width if group is None else group
    if group != width and (group < 1 or width % group):
        raise UserError(f"group {group} does not divide the {width} inputs of the weight")
    removed = _check_counts(removed, weight.numel() // group if group else len(weight), group)
    if runs_natively(weight, *factors.pointers(weight)):
        if group <= LONGEST:
            return launch_short(weight, removed, factors, group, write, want)
        if group == width and len(weight) <= MOST_GROUPS:
            return launch_long([weight], removed, [factors], write, want)[0]
    return select_rows_reference(weight, removed, factors, group, write, want)


def select_rows_reference(weight, removed, factors, group, write, want) -> Selection:
    """`select_rows` in torch, for checked arguments; it defines what the kernel computes."""
    scores = factored_score(weight, factors)
    refuse_not_finite(finite_rows(scores))
    keep = keep_largest_reference(scores.reshape(-1, group) if group else scores, removed)
    return _selection(
        weight,
        keep.view(weight.shape),
        (group - removed).to(weight.device, torch.int32),
        write,
        want,
    )


def select_global(
    weights: Sequence[torch.Tensor],
    removed: int,
    factors: Sequence[Factors],
    *,
    write: bool = True,
    want: str | None = None,
) -> list[Selection]:
    """Remove the `removed` lowest-scored weights of one or several layers, compared over all of
    them.

    Equal scores go in the order of the sequence, then by row and column. Arguments are those of
    `select_rows`, for each layer; `kept` of each layer is `[1]`.

    Raises:
        UserError: arguments that do not fit each other, or scores with NaN or infinity; nothing has
            been written then.
    """
    for weight, each in zip(weights, factors, strict=True):
        _check_weight(weight, each, want)
    counts = _check_counts(removed, 1, sum(weight.numel() for weight in weights))
    read = [
        p
        for weight, each in zip(weights, factors, strict=True)
        for p in (weight, *each.pointers(weight))
    ]
    if weights and runs_natively(*read):
        return launch_long(weights, counts, factors, write, want)
    return select_global_reference(weights, counts, factors, write, want)


def select_global_reference(weights, removed, factors, write, want) -> list[Selection]:
    """`select_together` in torch, for checked arguments; it defines what the kernels compute."""
    scores = (
        factored_score(weight, each).flatten()
        for weight, each in zip(weights, factors, strict=True)
    )
    every = torch.cat(list(scores))[None]
    refuse_not_finite(finite_rows(every), rows=False)
    pieces = keep_largest_reference(every, removed)[0].split([weight.numel() for weight in weights])
    return [
        _selection(weight, keep.view(weight.shape), keep.count_nonzero()[None].int(), write, want)
        for weight, keep in zip(weights, pieces, strict=True)
    ]


def _selection(weight, keep, kept, write, want) -> Selection:
    if write:
        apply_mask(weight, keep)
    return Selection(
        kept, keep if want == "mask" else None, pack_bits(keep) if want == "bits" else None
    )


def _check_weight(weight: torch.Tensor, factors: Factors, want: str | None) -> torch.Tensor:
    factors.check(weight)
    if want not in (None, "mask", "bits"):
        raise UserError(f"want {want!r} is unknown; use 'mask', 'bits' or None")
    if not weight.is_floating_point():
        raise UserError(
            f"weight is {weight.dtype}; use a dtype of floating point, as float32 or bfloat16"
        )
    return weight


def _check_counts(removed: int | torch.Tensor, groups: int, size: int) -> torch.Tensor:
    """The counts as int64 `[groups]`."""
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

"""Which of a group's weights are kept: the rule in torch, and the forms of the answer.

The k smallest scores of a group go; equal scores go lowest index first, as in a stable ascending
sort.
"""

import operator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import UserError
from ..masking import count_rows, mask_where, places_of

PER_BYTE = 8


@dataclass(frozen=True)
class Selection:
    """Which weights were kept.

    Attributes:
        kept: int32 `[groups]`, the number of kept weights of each group, in row-major order.
        mask: bool `[out, in]`, True where kept; None unless asked for.
        bits: uint8 `[out, ceil(in / 8)]`, the mask with input 8 b + j in bit j of byte b; None
            unless asked for.
    """

    kept: torch.Tensor
    mask: torch.Tensor | None = None
    bits: torch.Tensor | None = None


def keep_largest_reference(rows: torch.Tensor, removed: int | torch.Tensor) -> torch.Tensor:
    """`keep_largest` in torch; it defines what the kernels compute.

    It selects the threshold of each row instead of sorting.
    """
    if isinstance(removed, torch.Tensor):
        counts = removed.unique().tolist() or [0]
        if len(counts) > 1:
            keep = torch.empty_like(rows, dtype=torch.bool)
            for count in counts:
                chosen = (removed == count).nonzero().flatten().to(rows.device)
                keep[chosen] = keep_largest_reference(rows[chosen], count)
            return keep
        removed = counts[0]
    if removed == 0:
        return torch.ones_like(rows, dtype=torch.bool)
    threshold = kth_smallest(rows, removed)
    keep = mask_where(operator.gt, rows, threshold)
    # Ties at the threshold: the last ones are kept where more would go than were asked for.
    surplus = (rows.shape[1] - removed) - count_rows(keep)
    need = torch.nonzero(surplus).flatten()
    if len(need):
        tied = mask_where(operator.eq, rows[need], threshold[need])
        places = places_of(tied)
        stay = surplus[need]
        # Each row's ties stand together in the list of places; the last `stay` of them are kept.
        shift = count_rows(tied).cumsum(0) - stay.cumsum(0)
        kept = places[
            torch.arange(int(stay.sum()), device=places.device) + shift.repeat_interleave(stay)
        ]
        keep[need[kept // rows.shape[1]], kept % rows.shape[1]] = True
    return keep


def kth_smallest(rows: torch.Tensor, k: int) -> torch.Tensor:
    """The k-th smallest value of each row, `[groups, 1]`.

    Args:
        rows: float32 or float64 `[groups, size]`.
        k: rank of the value, from 1.
    """
    # On a CPU numpy's vectorised selection is about ten times as fast.
    if rows.device.type == "cpu":
        return torch.from_numpy(np.partition(rows.numpy(), k - 1, axis=1)[:, k - 1 : k].copy())
    return rows.kthvalue(k, dim=1, keepdim=True).values


def pack_bits(keep: torch.Tensor) -> torch.Tensor:
    """A mask `keep [out, in]` with eight inputs in a byte, uint8 `[out, ceil(in / 8)]`.

    Input 8 b + j is bit j of byte b; bits beyond the inputs are 0.
    """
    padded = F.pad(keep.to(torch.uint8), (0, -keep.shape[1] % PER_BYTE))
    places = torch.arange(PER_BYTE, device=keep.device, dtype=torch.uint8)
    return (padded.unflatten(1, (-1, PER_BYTE)) << places).sum(2, dtype=torch.uint8)


def unpack_bits(bits: torch.Tensor, columns: int) -> torch.Tensor:
    """The mask of bits from `pack_bits`, bool `[out, columns]`.

    Args:
        bits: uint8 `[out, ceil(columns / 8)]`.
        columns: number of inputs.

    Raises:
        UserError: `bits` is not of that shape and dtype.
    """
    width = -(-columns // PER_BYTE)
    if bits.dtype != torch.uint8 or bits.ndim != 2 or bits.shape[1] != width:
        raise UserError(
            f"bits are {bits.dtype} {list(bits.shape)}; {columns} columns need torch.uint8 [out, "
            f"{width}]"
        )
    places = torch.arange(PER_BYTE, device=bits.device, dtype=torch.uint8)
    return (bits[..., None] >> places & 1).flatten(1)[:, :columns].bool()


def finite_rows(scores: torch.Tensor) -> torch.Tensor:
    """Which rows of scores hold no NaN and no infinity, bool `[out]`.

    No score is negative, so that the maximum of a row tells.
    """
    if not scores.shape[1]:
        return scores.new_ones(len(scores), dtype=torch.bool)
    return scores.amax(1).isfinite()


def refuse_not_finite(finite: torch.Tensor, rows: bool = True) -> None:
    """Raise a `UserError` unless all scores are finite.

    Args:
        finite: bool `[rows]` or of any parts of the scores.
        rows: the entries of `finite` are those of a weight's rows, so that the error names one.
    """
    if not finite.all():
        where = ""
        if rows:
            where = f" of row {int((~finite).nonzero()[0])}"
        raise UserError(
            f"scores{where} hold NaN or infinity; weights and calibration norms must be finite"
        )

"""n:m sparsity: score, selection and packing in one pass over a weight.

n of every m consecutive inputs are kept; ties go lowest index first. `packed` has the formats.
"""

import operator

import torch

from ...errors import UserError
from ..formats.n_of_m import Packed, count_broken, pack_kept
from ..launch import next_power_of_2, on_device, or_unread, runs_natively
from ..masking import apply_mask, mask_where
from ..score import Score
from .n_of_m_kernels import n_of_m_kernel
from .rule import finite_rows, pack_bits, refuse_not_finite

SIZES = (4, 8, 16)  # the m that kernels take

_MOST_INPUTS = 2048  # most inputs of one program: sixteen a thread


def keep_n_of_m(scores: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """The mask bool `[out, in]` of the n highest scores of every m; ties go lowest index first.

    Each score is ranked among its neighbours by pairwise comparison. `scores` are `[out, in]`
    without NaN, and m is any divisor of `in`.
    """
    # Not -1 for the number of groups: there may be no rows.
    groups = scores.reshape(scores.shape[0], scores.shape[1] // m, m)
    rank = torch.zeros(groups.shape, dtype=torch.int16, device=scores.device)
    for shift in range(1, m):
        lower_first = mask_where(operator.le, groups[..., :-shift], groups[..., shift:])
        rank[..., shift:] += lower_first
        rank[..., :-shift] += ~lower_first
    return (rank >= m - n).view(scores.shape)


def select_n_of_m(
    score: Score,
    n: int,
    m: int,
    *,
    write: bool = True,
    want: str | None = None,
) -> torch.Tensor | Packed | None:
    """Keep the n highest-scored of every m consecutive inputs.

    Args:
        score: score of a weight `[out, in]`; m divides `in`.
        n: weights that are kept of every group.
        m: weights of a group: 4, 8 or 16.
        write: set what goes to zero in the weight, in place.
        want: 'mask' for a mask bool `[out, in]`, 'bits' for that mask as `pack_bits` has it,
            'packed' for the packed weight, None for nothing.

    Raises:
        UserError: arguments that do not fit each other, or scores with NaN or infinity. Finite
            groups may then have been written.
    """
    _check(score.weight, n, m, want)
    score.check()
    if runs_natively(*score.pointers()):
        return launch_n_of_m(score, n, m, write, want)
    return select_n_of_m_reference(score, n, m, write, want)


def pack_n_of_m(weight: torch.Tensor, n: int, m: int) -> Packed:
    """Pack a weight `[out, in]` that is n:m already; `unpack_n_of_m` gives it back.

    A group with fewer than n weights other than zero is filled up with some of its zeros.

    Raises:
        UserError: arguments that do not fit each other, a weight that is not n:m or not finite.
    """
    _check(weight, n, m, "packed")
    if broken := count_broken(weight, n, m):
        raise UserError(
            f"weight {list(weight.shape)} is not {n}:{m}: {broken} of {weight.numel() // m} groups "
            f"hold more than {n} weights other than 0; prune it with that pattern first"
        )
    return select_n_of_m(Score(weight), n, m, write=False, want="packed")


def _check(weight: torch.Tensor, n: int, m: int, want: str | None) -> None:
    if want not in (None, "mask", "bits", "packed"):
        raise UserError(f"want {want!r} is unknown; use 'mask', 'bits', 'packed' or None")
    if m not in SIZES or not 0 < n < m:
        raise UserError(
            f"pattern '{n}:{m}' is not allowed; n of m are kept, 0 < n < m, and m is 4, 8 or 16"
        )
    if weight.ndim != 2 or not weight.is_floating_point():
        raise UserError(
            f"weight is {weight.dtype} {list(weight.shape)}; use a matrix [out, in] of a float "
            "dtype"
        )
    if weight.shape[1] % m:
        raise UserError(
            f"weight has {weight.shape[1]} inputs, which pattern {n}:{m} does not divide; use "
            "another one"
        )


def select_n_of_m_reference(
    score: Score, n: int, m: int, write: bool, want: str | None
) -> torch.Tensor | Packed | None:
    """`select_n_of_m` in torch, for checked arguments; it defines what the kernel computes."""
    scores = score.dense()
    refuse_not_finite(finite_rows(scores))
    keep = keep_n_of_m(scores, n, m)
    result = None
    if want == "mask":
        result = keep
    elif want == "bits":
        result = pack_bits(keep)
    elif want == "packed":
        result = pack_kept(score.weight, keep, n, m)  # before the weight is written
    if write:
        apply_mask(score.weight, keep)
    return result


@on_device
def launch_n_of_m(
    score: Score, n: int, m: int, write: bool, want: str | None, *, check: bool = True
) -> torch.Tensor | Packed | None:
    """`select_n_of_m` by the kernel, for checked arguments; `check` as for `launch_short`."""
    weight = score.weight
    rows, width = weight.shape
    groups = width // m
    new = {"device": weight.device}
    block = min(max(next_power_of_2(groups), 16), _MOST_INPUTS // m)
    blocks = -(-groups // block)
    finite = torch.empty(rows, blocks, dtype=torch.bool, **new)
    mask = values = codes = None
    in_words = want == "packed" and (n, m) == (2, 4)
    if want == "mask":
        mask = torch.empty(rows, width, dtype=torch.bool, **new)
    elif want == "packed":
        values = torch.empty(rows, groups * n, dtype=weight.dtype, **new)
    if in_words:
        codes = torch.empty(rows, -(-width // 16), dtype=torch.int16, **new)
    elif want in ("bits", "packed"):
        codes = torch.empty(rows, -(-width // 8), dtype=torch.uint8, **new)
    if rows * blocks:
        n_of_m_kernel[(rows * blocks,)](
            *score.pointers(),
            finite,
            or_unread(mask, finite),
            or_unread(values, finite),
            or_unread(codes, finite),
            groups,
            blocks,
            *weight.stride(),
            0 if codes is None else codes.shape[1],
            FORM=score.form,
            N=n,
            M=m,
            WRITE=write,
            MASK=mask is not None,
            VALUES=values is not None,
            CODES=codes is not None,
            WORDS=in_words,
            BLOCK=block,
            num_warps=4,
            enable_fp_fusion=False,
        )
    if check:
        refuse_not_finite(finite.all(1))
    if want == "packed":
        return Packed(values, codes, n, m)
    return mask if want == "mask" else codes

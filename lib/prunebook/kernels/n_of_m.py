"""n:m sparsity: score, selection and packing in one pass over a weight.

n of every m consecutive inputs are kept; ties go lowest index first. `packed` has the formats.
"""

from __future__ import annotations

import operator

import torch

from ..errors import UserError
from .launch import jit, next_power_of_2, on_device, or_unread, runs_natively, tl
from .masking import apply_mask, mask_where
from .packed import Packed, count_broken, pack_kept
from .score import Score, load_score, order_key
from .selection import finite_rows, pack_bits, refuse_not_finite

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
        _n_of_m_kernel[(rows * blocks,)](
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


@jit
def _n_of_m_kernel(
    weight,
    columns,
    column_sums,
    row_sums,
    finite,
    mask,
    values,
    codes,
    groups,
    blocks,
    row_stride,
    column_stride,
    codes_stride,
    FORM: tl.constexpr,
    N: tl.constexpr,
    M: tl.constexpr,
    WRITE: tl.constexpr,
    MASK: tl.constexpr,
    VALUES: tl.constexpr,
    CODES: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program for `BLOCK` groups of a row, whose weights are M tensors `[BLOCK]`.

    Score i is kept if at least M - N of the others are lower, or equal and to the left.
    """
    program = tl.program_id(0)
    row = (program // blocks).to(tl.int64)
    group = program % blocks * BLOCK + tl.arange(0, BLOCK)
    real = group < groups
    width = groups * M
    w = ()
    keys = ()
    for chunk in tl.static_range(M // 4):  # vectors of four neighbours
        cols = group[:, None] * M + (4 * chunk + tl.arange(0, 4))[None, :]
        inside = cols < width
        four = tl.load(
            weight + row * row_stride + cols.to(tl.int64) * column_stride, mask=inside, other=0.0
        )
        key = order_key(load_score(four, columns, column_sums, row_sums, row, cols, inside, FORM))
        w += _part(four, BLOCK)
        keys += _part(key, BLOCK)
    highest = keys[0]
    for i in tl.static_range(1, M):
        highest = tl.maximum(highest, keys[i])
    good = tl.max(tl.where(real, highest, 0), 0) < 0x7F800000
    tl.store(finite + program, good)

    keep = ()
    for i in tl.static_range(M):
        rank = tl.zeros((BLOCK,), tl.int32)
        for j in tl.static_range(M):
            if j < i:
                rank += (keys[j] <= keys[i]).to(tl.int32)
            elif j > i:
                rank += (keys[j] < keys[i]).to(tl.int32)
        keep += (rank >= M - N,)

    for chunk in tl.static_range(M // 4):
        cols = group[:, None] * M + (4 * chunk + tl.arange(0, 4))[None, :]
        kept = _joined(
            keep[4 * chunk], keep[4 * chunk + 1], keep[4 * chunk + 2], keep[4 * chunk + 3], BLOCK
        )
        if WRITE:
            four = _joined(
                w[4 * chunk], w[4 * chunk + 1], w[4 * chunk + 2], w[4 * chunk + 3], BLOCK
            )
            address = weight + row * row_stride + cols.to(tl.int64) * column_stride
            tl.store(address, tl.where(kept, four, 0.0).to(four.dtype), mask=(cols < width) & good)
        if MASK:
            tl.store(mask + row * width + cols, kept, mask=cols < width)

    code = tl.zeros((BLOCK,), tl.int32)
    if VALUES:
        before = ()  # how many are kept to the left
        count = tl.zeros((BLOCK,), tl.int32)
        for i in tl.static_range(M):
            before += (count,)
            count += keep[i].to(tl.int32)
        slots = ()
        for slot in tl.static_range(N):
            value = w[slot + M - N]  # its last possible place
            place = tl.full((BLOCK,), slot + M - N, tl.int32)
            for back in tl.static_range(1, M - N + 1):
                here = keep[slot + M - N - back] & (before[slot + M - N - back] == slot)
                value = tl.where(here, w[slot + M - N - back], value)
                place = tl.where(here, slot + M - N - back, place)
            slots += (value,)
            if WORDS:
                code += place << 2 * slot
        target = values + (row * groups + group) * N
        if N % 2 == 0:
            for pair in tl.static_range(N // 2):
                two = 2 * pair + tl.arange(0, 2)
                both = tl.join(slots[2 * pair], slots[2 * pair + 1])
                tl.store(target[:, None] + two[None, :], both, mask=real[:, None])
        else:
            for slot in tl.static_range(N):
                tl.store(target + slot, slots[slot], mask=real)
    if CODES:
        if not WORDS:
            for i in tl.static_range(M):
                code += keep[i].to(tl.int32) << i
        first = program % blocks * BLOCK
        _store_codes(
            codes + row * codes_stride,
            tl.where(real, code, 0),
            first,
            codes_stride,
            M,
            WORDS,
            BLOCK,
        )


@jit
def _part(four, BLOCK: tl.constexpr):
    """Split `[BLOCK, 4]` into four tensors `[BLOCK]`, within each thread."""
    even, odd = tl.split(tl.reshape(four, (BLOCK, 2, 2)))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a, b, c, d


@jit
def _joined(a, b, c, d, BLOCK: tl.constexpr):
    """Join four tensors `[BLOCK]` to `[BLOCK, 4]`, the inverse of `_part`."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4))


@jit
def _store_codes(
    target, code, first, stride, M: tl.constexpr, WORDS: tl.constexpr, BLOCK: tl.constexpr
):
    """Store codes `[BLOCK]` of the groups from `first` on: four in a word, or M bits each."""
    if WORDS:
        four = tl.reshape(code, (BLOCK // 4, 4)) << 4 * tl.arange(0, 4)[None, :]
        at = first // 4 + tl.arange(0, BLOCK // 4)
        tl.store(target + at, tl.sum(four, 1).to(tl.int16), mask=at < stride)
    elif M == 4:
        two = tl.reshape(code, (BLOCK // 2, 2)) << 4 * tl.arange(0, 2)[None, :]
        at = first // 2 + tl.arange(0, BLOCK // 2)
        tl.store(target + at, tl.sum(two, 1).to(tl.uint8), mask=at < stride)
    else:
        for byte in tl.static_range(M // 8):
            at = (first + tl.arange(0, BLOCK)) * (M // 8) + byte
            tl.store(target + at, (code >> 8 * byte).to(tl.uint8), mask=at < stride)

"""The Triton kernels of n:m sparsity: score, selection and packing in one pass."""

from ..launch import jit, tl
from ..score import load_score, order_key


@jit
def n_of_m_kernel(
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

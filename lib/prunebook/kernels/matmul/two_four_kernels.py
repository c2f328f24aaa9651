"""The Triton kernels of the products with 2:4 weights."""

from ..formats.n_of_m import code_of_groups, expand, halves
from ..launch import jit, tl


@jit
def _four_inputs(x, word, width, THREADS: tl.constexpr):
    """The 16 inputs of each word as four float32 `[THREADS, 4]`, by their place in groups of four.

    They are loaded by eights, so that a thread has just the inputs of its codes.
    """
    place = word[:, None] * 16 + tl.arange(0, 8)[None, :]
    low = tl.load(x + place, mask=place < width, other=0.0).to(tl.float32)
    high = tl.load(x + place + 8, mask=place + 8 < width, other=0.0).to(tl.float32)
    both = tl.permute(tl.join(low, high), (0, 2, 1))
    even, odd = tl.split(tl.reshape(both, (THREADS, 4, 2, 2)))
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    return x0, x1, x2, x3


@jit
def fma_kernel(
    x,
    pairs,
    codes,
    bias,
    y,
    rows,
    width,
    WORDS: tl.constexpr,
    TOKENS: tl.constexpr,
    BIAS: tl.constexpr,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    THREADS: tl.constexpr,
):
    """One program for `ROWS` outputs of all tokens.

    A thread takes one word of codes at a time: four groups, whose eight values are one vector.
    """
    first = tl.program_id(0) * ROWS
    thread = tl.arange(0, THREADS)
    four = tl.arange(0, 4)
    groups = width // 4
    sums = ()
    for _ in tl.static_range(ROWS * TOKENS):
        sums += (tl.zeros((THREADS, 4), tl.float32),)
    for start in range(0, WORDS, THREADS):
        word = start + thread
        group = word[:, None] * 4 + four[None, :]
        inputs = ()
        for token in tl.static_range(TOKENS):
            inputs += (_four_inputs(x + token * width, word, width, THREADS),)
        new = ()
        for r in tl.static_range(ROWS):
            row = tl.minimum(first + r, rows - 1).to(tl.int64)
            pair = tl.load(pairs + row * groups + group, mask=group < groups, other=0)
            code = tl.load(codes + row * WORDS + word, mask=word < WORDS, other=0)
            code = code.to(tl.int32)[:, None] >> (4 * four)[None, :]
            i = code & 3
            j = code >> 2 & 3
            a, b = halves(pair, x.dtype.element_ty, BITS)
            a = a.to(tl.float32)
            b = b.to(tl.float32)
            for token in tl.static_range(TOKENS):
                x0, x1, x2, x3 = inputs[token]
                # i < j: i is never 3, j never 0
                xi = tl.where(i == 0, x0, tl.where(i == 1, x1, x2))
                xj = tl.where(j == 3, x3, tl.where(j == 2, x2, x1))
                new += (sums[r * TOKENS + token] + a * xi + b * xj,)
        sums = new
    for r in tl.static_range(ROWS):
        real = first + r < rows
        for token in tl.static_range(TOKENS):
            total = tl.sum(tl.sum(sums[r * TOKENS + token], 1), 0)
            if BIAS:
                total += tl.load(bias + first + r, mask=real, other=0.0).to(tl.float32)
            tl.store(y + token * rows + first + r, total.to(y.dtype.element_ty), mask=real)


@jit
def tile_kernel(
    x,
    pairs,
    codes,
    bias,
    out,
    rows,
    tokens,
    width,
    words,
    STEPS: tl.constexpr,
    BIAS: tl.constexpr,
    BITS: tl.constexpr,
    OUT: tl.constexpr,
    GROUPS: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program for `OUT` outputs of all tokens and one part of K, which is `STEPS` tiles.

    Part p is written to `out[p]`. The tile of W is expanded to dense order within each thread, and
    is the operand on the 64-row side.
    """
    row = tl.program_id(0) * OUT + tl.arange(0, OUT)
    part = tl.program_id(1)
    token = tl.arange(0, TOKENS)
    groups = width // 4
    pair_rows = pairs + row.to(tl.int64)[:, None] * groups
    code_rows = codes + row.to(tl.int64)[:, None] * words
    real = (row < rows)[:, None]
    sums = tl.zeros((OUT, TOKENS), tl.float32)
    for i_step in range(STEPS):
        step = part * STEPS + i_step
        group = (step * GROUPS + tl.arange(0, GROUPS))[None, :]
        word = (step * (GROUPS // 4) + tl.arange(0, GROUPS // 4))[None, :]
        inputs = step * (4 * GROUPS) + tl.arange(0, 4 * GROUPS)
        pair = tl.load(pair_rows + group, mask=real & (group < groups), other=0)
        code = tl.load(code_rows + word, mask=real & (word < words), other=0)
        at = token[:, None] * width + inputs[None, :]
        tile = tl.load(
            x + at, mask=(token < tokens)[:, None] & (inputs < width)[None, :], other=0.0
        )
        first, second = halves(pair, x.dtype.element_ty, BITS)
        i, j = code_of_groups(code, OUT, GROUPS // 4)
        dense = expand(first, second, i, j, OUT, GROUPS)
        if WIDE:
            dense = dense.to(tl.float32)
            tile = tile.to(tl.float32)
        sums = tl.dot(dense, tl.trans(tile), sums, input_precision="ieee")
    if BIAS:
        sums += tl.load(bias + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    target = out + part.to(tl.int64) * tokens * rows + token[None, :] * rows + row[:, None]
    tl.store(target, sums.to(out.dtype.element_ty), mask=real & (token < tokens)[None, :])


@jit
def add_kernel(
    parts, bias, y, size, rows, SPLITS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr
):
    """Add parts `[splits, tokens, rows]` in their order: the result is the same in every run."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = at < size
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(SPLITS):
        total += tl.load(parts + part * size + at, mask=real, other=0.0)
    if BIAS:
        total += tl.load(bias + at % rows, mask=real, other=0.0).to(tl.float32)
    tl.store(y + at, total.to(y.dtype.element_ty), mask=real)

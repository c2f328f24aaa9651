"""The Triton kernels of the products with weights without zeros."""

from ..formats.bitmap import joined, load_weights
from ..launch import jit, tl


@jit
def _eight_inputs(x, first, width, LANES: tl.constexpr):
    """The eight inputs from each of `first [LANES]` on, as float32 `[LANES]`, loaded at once."""
    at = first[:, None] + tl.arange(0, 8)[None, :]
    eight = tl.load(x + at, mask=at < width, other=0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(eight, (LANES, 2, 2, 2)))  # places 0 2 4 6, 1 3 5 7
    x04, x26 = tl.split(even)
    x15, x37 = tl.split(odd)
    x0, x4 = tl.split(x04)
    x1, x5 = tl.split(x15)
    x2, x6 = tl.split(x26)
    x3, x7 = tl.split(x37)
    return x0, x1, x2, x3, x4, x5, x6, x7


@jit
def bitmap_fma_kernel(
    x,
    values,
    bits,
    starts,
    bias,
    out,
    rows,
    tokens,
    width,
    row_bytes,
    segments,
    STEPS: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """One program of one warp for `ROWS` outputs of all tokens and one part of K.

    A part is `STEPS` segments; part p is written to `out[p]`. A thread has 16 places of a segment,
    and one scan tells where its values begin.
    """
    first = tl.program_id(0).to(tl.int64) * ROWS
    part = tl.program_id(1)
    sums = ()
    for _ in tl.static_range(ROWS * TOKENS):
        sums += (tl.zeros((PAIRS,), tl.float32),)
    for step in range(STEPS):
        segment = part * STEPS + step
        pair = segment * PAIRS + tl.arange(0, PAIRS)
        inputs = ()
        for token in tl.static_range(TOKENS):
            row_x = x + token * width
            inputs += (_eight_inputs(row_x, 16 * pair, width, PAIRS),)
            inputs += (_eight_inputs(row_x, 16 * pair + 8, width, PAIRS),)
        new = ()
        for r in tl.static_range(ROWS):
            real = (first + r < rows) & (segment < segments)
            start = tl.load(starts + (first + r) * segments + segment, mask=real, other=0)
            weights = load_weights(
                values, bits + (first + r) * row_bytes, pair, row_bytes, start, real
            )[0]
            for token in tl.static_range(TOKENS):
                total = sums[r * TOKENS + token]
                for place in tl.static_range(16):
                    total += (
                        weights[place].to(tl.float32) * inputs[2 * token + place // 8][place % 8]
                    )
                new += (total,)
        sums = new
    for r in tl.static_range(ROWS):
        real = first + r < rows
        for token in tl.static_range(TOKENS):
            total = tl.sum(sums[r * TOKENS + token], 0)
            if BIAS:
                total += tl.load(bias + first + r, mask=real, other=0.0).to(tl.float32)
            target = out + (part.to(tl.int64) * TOKENS + token) * rows + first + r
            tl.store(target, total.to(out.dtype.element_ty), mask=real)


@jit
def bitmap_tile_kernel(
    x,
    values,
    bits,
    starts,
    bias,
    out,
    rows,
    tokens,
    width,
    row_bytes,
    segments,
    STEPS: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    PAIRS: tl.constexpr,
    TILES: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program for `OUT` outputs of all tokens and one part of K.

    A part is `STEPS` segments of `TILES` tiles; part p is written to `out[p]`. A tile of W is
    expanded to dense order, and is the operand on the 64-row side.
    """
    row = tl.program_id(0) * OUT + tl.arange(0, OUT)
    part = tl.program_id(1)
    token = tl.arange(0, TOKENS)
    real = row < rows
    # Places are the first axis: where nothing tells Triton how addresses run, it puts neighbours
    # along it into neighbouring threads.
    row_bits = bits + row.to(tl.int64)[None, :] * row_bytes
    lanes = tl.arange(0, PAIRS)[:, None]
    sums = tl.zeros((OUT, TOKENS), tl.float32)
    for step in range(STEPS):
        segment = part * STEPS + step
        start = tl.load(
            starts + row * segments + segment, mask=real & (segment < segments), other=0
        )
        for i_tile in range(TILES):
            tile = segment * TILES + i_tile
            column = tile * (16 * PAIRS) + tl.arange(0, 16 * PAIRS)
            at = token[:, None] * width + column[None, :]
            inputs = tl.load(
                x + at, mask=(token < tokens)[:, None] & (column < width)[None, :], other=0.0
            )
            pair = tile * PAIRS + lanes
            weights, ones = load_weights(
                values, row_bits, pair, row_bytes, start[None, :], real[None, :]
            )
            dense = tl.reshape(tl.permute(joined(weights), (1, 0, 2, 3, 4, 5)), (OUT, 16 * PAIRS))
            if WIDE:
                dense = dense.to(tl.float32)
                inputs = inputs.to(tl.float32)
            sums = tl.dot(dense, tl.trans(inputs), sums, input_precision="ieee")
            start += tl.sum(ones, 0)
    if BIAS:
        sums += tl.load(bias + row, mask=real, other=0.0).to(tl.float32)[:, None]
    target = out + part.to(tl.int64) * tokens * rows + token[None, :] * rows + row[:, None]
    tl.store(target, sums.to(out.dtype.element_ty), mask=real[:, None] & (token < tokens)[None, :])


@jit
def ell_kernel(
    x,
    values,
    deltas,
    bias,
    y,
    rows,
    width,
    eights,
    TOKENS: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program of one warp for `ROWS` outputs of all tokens.

    It loops over entries, of which a row has `eights` times eight, and gathers their inputs. One
    scan over `BLOCK` steps tells where they are.
    """
    first = tl.program_id(0).to(tl.int64) * ROWS
    entries = eights * 8  # as a product, which tells Triton that vectors of eight are aligned
    passed = ()
    sums = ()
    for _ in tl.static_range(ROWS):
        passed += (tl.program_id(0) * 0,)  # inputs, an int32
    for _ in tl.static_range(ROWS * TOKENS):
        sums += (tl.zeros((BLOCK,), tl.float32),)
    start = 0
    while start < entries:
        at = start + tl.arange(0, BLOCK)
        now = ()
        new = ()
        for r in tl.static_range(ROWS):
            real = (first + r < rows) & (at < entries)
            step = tl.load(deltas + (first + r) * entries + at, mask=real, other=0).to(tl.int32) + 1
            value = tl.load(values + (first + r) * entries + at, mask=real, other=0.0).to(
                tl.float32
            )
            column = passed[r] + tl.cumsum(step, 0) - 1
            now += (passed[r] + tl.sum(step, 0),)
            for token in tl.static_range(TOKENS):
                inputs = tl.load(
                    x + token * width + column, mask=real & (column < width), other=0.0
                )
                new += (sums[r * TOKENS + token] + value * inputs.to(tl.float32),)
        passed = now
        sums = new
        start += BLOCK
    for r in tl.static_range(ROWS):
        for token in tl.static_range(TOKENS):
            total = tl.sum(sums[r * TOKENS + token], 0)
            if BIAS:
                total += tl.load(bias + first + r, mask=first + r < rows, other=0.0).to(tl.float32)
            tl.store(
                y + token * rows + first + r, total.to(y.dtype.element_ty), mask=first + r < rows
            )

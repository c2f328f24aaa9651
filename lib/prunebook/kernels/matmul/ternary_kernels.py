"""The Triton kernels of the products of ternary weights with 8-bit activations."""

from ..launch import jit, tl


@jit
def _scaled(
    sums,
    scale,
    x_scale,
    bias,
    scale_stride,
    row,
    token,
    real,
    WHOLE: tl.constexpr,
    BIAS: tl.constexpr,
):
    """The sums at `row` and `token`, which broadcast, times the scales, plus the bias."""
    factor = tl.load(scale + row * scale_stride, mask=real, other=0.0)
    if WHOLE:
        factor = tl.div_rn(factor, tl.load(x_scale + token, mask=real, other=1.0))
    y = sums.to(tl.float32) * factor
    if BIAS:
        y += tl.load(bias + row, mask=real, other=0.0).to(tl.float32)
    return y


@jit
def ternary_kernel(
    planes,
    packed,
    out,
    scale,
    x_scale,
    bias,
    scale_stride,
    tokens,
    rows,
    width,
    WHOLE: tl.constexpr,
    BIAS: tl.constexpr,
    STEPS: tl.constexpr,
    DONE: tl.constexpr,
    OUT: tl.constexpr,
    BYTES: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program for `OUT` rows of W, all tokens and one part of K.

    A byte holds one code of each plane of x, so that nothing is interleaved. Codes multiply as 0,
    1, 2; with whole numbers the sum of x is subtracted once a token.
    """
    row = tl.program_id(0) * OUT + tl.arange(0, OUT)
    part = tl.program_id(1)
    token = tl.arange(0, TOKENS)
    sums = tl.zeros((OUT, TOKENS), tl.int32 if WHOLE else tl.float32)
    taken = tl.zeros((TOKENS,), tl.int32)
    for i in range(STEPS):
        byte = (part * STEPS + i) * BYTES + tl.arange(0, BYTES)
        there = byte < width
        word = tl.load(
            packed + row.to(tl.int64)[:, None] * width + byte[None, :],
            mask=(row < rows)[:, None] & there[None, :],
            other=0x55,
        )
        for place in tl.static_range(4):
            at = (place * tokens + token)[:, None] * width + byte[None, :]
            x = tl.load(planes + at, mask=(token < tokens)[:, None] & there[None, :], other=0)
            digit = ((word >> 2 * place) & 3).to(tl.int8)
            if WHOLE:
                sums = tl.dot(digit, tl.trans(x), sums, out_dtype=tl.int32)
                taken += tl.sum(x.to(tl.int32), 1)
            else:
                code = (digit - 1).to(tl.float32).to(x.dtype)
                if WIDE:
                    code = code.to(tl.float32)
                    x = x.to(tl.float32)
                sums = tl.dot(code, tl.trans(x), sums, input_precision="ieee")
    if WHOLE:
        sums -= taken[None, :]
    real = (row < rows)[:, None] & (token < tokens)[None, :]
    target = out + (part.to(tl.int64) * tokens + token)[None, :] * rows + row[:, None]
    if DONE:
        y = _scaled(
            sums,
            scale,
            x_scale,
            bias,
            scale_stride,
            row[:, None],
            token[None, :],
            real,
            WHOLE,
            BIAS,
        )
        tl.store(target, y, mask=real)
    else:
        tl.store(target, sums, mask=real)


@jit
def add_kernel(
    parts,
    y,
    scale,
    x_scale,
    bias,
    scale_stride,
    tokens,
    rows,
    WHOLE: tl.constexpr,
    BIAS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the parts of K, `[splits, tokens, rows]`, in their order, then scale the sums."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = place < tokens * rows
    sums = tl.zeros((BLOCK,), tl.int32 if WHOLE else tl.float32)
    for part in range(SPLITS):
        sums += tl.load(parts + part * tokens * rows + place, mask=real, other=0)
    y_scaled = _scaled(
        sums, scale, x_scale, bias, scale_stride, place % rows, place // rows, real, WHOLE, BIAS
    )
    tl.store(y + place, y_scaled, mask=real)

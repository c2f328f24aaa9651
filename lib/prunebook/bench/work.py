"""What a kernel has to do at least: bytes moved and operations, in closed form, and the time that
follows.

Bytes are *algorithmic*: each input read once, each output written once, whatever an implementation
really moves. Needs no torch.
"""

from dataclasses import dataclass

_WEIGHT = 2  # bytes: bfloat16, float32
_FACTOR = 4
_PLACE_BITS = 2  # of a kept weight among four
# float32 factors for each column and for each row that a score is made of
_SCORES = {"magnitude": (0, 0), "wanda": (1, 0), "ria": (2, 1)}


@dataclass(frozen=True)
class Work:
    """`bytes` moved to and from the device's memory; `flop`, two for a multiplication with its
    addition, 0 where a kernel compares and moves, but does not calculate."""

    bytes: int
    flop: int = 0

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flop / self.bytes

    def floor(self, bandwidth: float, arithmetic: float) -> float:
        """The least seconds at `bandwidth` in bytes and `arithmetic` in operations a second."""
        return max(self.bytes / bandwidth, self.flop / arithmetic)


def select(rows: int, columns: int, score: str) -> Work:
    """Score, select and zero in place, bfloat16: a weight is read and written once, a factor read
    once."""
    of_columns, of_rows = _SCORES[score]
    return Work(2 * _WEIGHT * rows * columns + _FACTOR * (of_columns * columns + of_rows * rows))


def pack_n_of_m(rows: int, columns: int, n: int, m: int, score: str) -> Work:
    """Score, select and pack n:m: a bfloat16 weight read, the kept ones and a bit for each position
    written."""
    of_columns, of_rows = _SCORES[score]
    packed = rows * columns * n // m * _WEIGHT + rows * columns // 8
    return Work(
        _WEIGHT * rows * columns + packed + _FACTOR * (of_columns * columns + of_rows * rows)
    )


def dense_product(tokens: int, outputs: int, inputs: int, weight_bits: float = 16) -> Work:
    """`y [tokens, outputs] = x W^T` with bfloat16 activations and weights of `weight_bits` each."""
    activations = 2 * tokens * (inputs + outputs)
    return Work(
        round(weight_bits * inputs * outputs / 8) + activations, 2 * tokens * inputs * outputs
    )


def product_2_4(tokens: int, outputs: int, inputs: int) -> Work:
    """The same with a packed 2:4 weight, 9 bits a position as two values and their places in a
    group of four stand.

    Operations are those of the dense product: decoded weights meet dense tensor cores.
    """
    return dense_product(tokens, outputs, inputs, 16 / 2 + 2 * _PLACE_BITS / 4)


def product_bitmap(tokens: int, outputs: int, inputs: int, kept: int) -> Work:
    """The same with a bitmap of a weight that has `kept` other than zero in each row: a bit a
    place, these in bfloat16 and filled up to eight, an int32 where each 512 places begin."""
    row = 4 * -(-inputs // 512) + -(-inputs // 8) + _WEIGHT * 8 * -(-kept // 8)
    return Work(row * outputs + 2 * tokens * (inputs + outputs), 2 * tokens * inputs * outputs)


def ternary_product(tokens: int, outputs: int, inputs: int) -> Work:
    """The same with ternary weights in two bits each, int8 activations and float32 results, each
    with its scales.

    Operations are those of the dense product in bfloat16; in int8 a device has about twice as many.
    """
    activations = tokens * (inputs + _FACTOR * (outputs + 1))
    return Work(
        -(-inputs // 4) * outputs + activations + _FACTOR * outputs, 2 * tokens * inputs * outputs
    )


def sparsegpt_update(rows: int, columns: int) -> Work:
    """SparseGPT's sweep over a float32 weight: each column's error goes into all columns to its
    right; the weight is read and written once, the upper inverse factor read once."""
    return Work(8 * rows * columns + 2 * columns * (columns + 1), rows * columns * (columns - 1))


def sparsegpt_block(rows: int, columns: int) -> Work:
    """The same for one block, without the columns beyond: the weight and a mask of bytes read, the
    weight and the errors written."""
    size = rows * columns
    return Work((3 * 4 + 1) * size + 2 * columns * (columns + 1), size * (columns - 1))


def attention_decode(batch: int, slots: int, heads: int, kv_heads: int, width: int) -> Work:
    """One token of each row over a full cache, with each slot's mass: bfloat16 keys, values and
    queries, and the int64 position in a slot, read once; bfloat16 outputs and float32 mass written.
    Two products a head and slot."""
    a_slot = 2 * _WEIGHT * width + 8 + _FACTOR
    activations = 2 * _WEIGHT * heads * width
    return Work(
        batch * (kv_heads * slots * a_slot + activations), 4 * batch * heads * slots * width
    )


def compare_logits(tokens: int, vocabulary: int) -> Work:
    """Two bfloat16 logits of each word read once, three numbers of each token written, its int64
    target read."""
    return Work(2 * _WEIGHT * tokens * vocabulary + (8 + 2 * _FACTOR + 1) * tokens)


def attention_mass(tokens: int, heads: int, kv_heads: int, width: int) -> Work:
    """What each key of a prompt gets from all queries: bfloat16 queries and keys and int64
    positions read once, float32 sums written. One causal product of queries and keys, although the
    normaliser takes a second one."""
    read = 2 * width * tokens * (heads + kv_heads) + 8 * tokens
    return Work(read + 4 * kv_heads * tokens, heads * width * tokens * (tokens + 1))


def fill_holes(heads: int, slots: int, kept: int, width: int) -> Work:
    """Compaction of bfloat16 keys and values in place: a byte a slot read that says what is kept,
    and on average `kept (1 - kept / slots)` rows of each head read and written."""
    rows = 2 * heads * kept * (slots - kept) / slots
    return Work(heads * slots + round(2 * _WEIGHT * width * rows))


def one_shot(parameters: int, tokens: int, passes: int) -> Work:
    """`passes` forward passes of `tokens` through blocks with `parameters` weights, without
    attention; the weights are read and written once."""
    return Work(2 * _WEIGHT * parameters, 2 * parameters * tokens * passes)

"""The least that a kernel has to do: bytes moved and operations, in closed form.

Bytes are *algorithmic*: each input is read once and each output written once, whatever an
implementation really moves. From both follows the least time on a device. Needs no torch.
"""

from dataclasses import dataclass

from ..kernels.forms import COLUMNS, FACTORS, MAGNITUDE, SHARES

_WEIGHT = 2  # bytes of a bfloat16 weight
_FACTOR = 4  # bytes of a float32 factor
_PLACE_BITS = 2  # bits that name the place of a kept weight among four
_FORMS = {"magnitude": MAGNITUDE, "wanda": COLUMNS, "ria": SHARES}


@dataclass(frozen=True)
class Work:
    """What a kernel has to do.

    Attributes:
        bytes: bytes moved to and from the device's memory.
        flop: operations, two for a multiplication with its addition; 0 where a kernel compares and
            moves, but does not calculate.
    """

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
    """Score, select and zero a bfloat16 weight in place.

    A weight is read and written once, a factor is read once.
    """
    return Work(2 * _WEIGHT * rows * columns + _factor_bytes(rows, columns, score))


def pack_n_of_m(rows: int, columns: int, n: int, m: int, score: str) -> Work:
    """Score, select and pack n:m.

    A bfloat16 weight is read; kept weights and a bit for each position are written.
    """
    packed = rows * columns * n // m * _WEIGHT + rows * columns // 8
    return Work(_WEIGHT * rows * columns + packed + _factor_bytes(rows, columns, score))


def _factor_bytes(rows: int, columns: int, score: str) -> int:
    """Bytes of the factors of a score, e.g. 'wanda'."""
    of_columns, of_rows = FACTORS[_FORMS[score]]
    return _FACTOR * (of_columns * columns + of_rows * rows)


def dense_product(tokens: int, outputs: int, inputs: int, weight_bits: float = 16) -> Work:
    """`y [tokens, outputs] = x W^T` with bfloat16 activations and weights of `weight_bits` each."""
    activations = 2 * tokens * (inputs + outputs)
    return Work(
        round(weight_bits * inputs * outputs / 8) + activations, 2 * tokens * inputs * outputs
    )


def product_2_4(tokens: int, outputs: int, inputs: int) -> Work:
    """The same product with a packed 2:4 weight.

    Two values and their places in a group of four take 9 bits a position. Operations are those of
    the dense product: decoded weights meet dense tensor cores.
    """
    return dense_product(tokens, outputs, inputs, 16 / 2 + 2 * _PLACE_BITS / 4)


def product_bitmap(tokens: int, outputs: int, inputs: int, kept: int) -> Work:
    """The same product with the bitmap of a weight that keeps `kept` weights in each row.

    A row holds a bit for each place, its kept weights in bfloat16 and filled up to a multiple of
    eight, and an int32 for each 512 places.
    """
    row = 4 * -(-inputs // 512) + -(-inputs // 8) + _WEIGHT * 8 * -(-kept // 8)
    return Work(row * outputs + 2 * tokens * (inputs + outputs), 2 * tokens * inputs * outputs)


def ternary_product(tokens: int, outputs: int, inputs: int) -> Work:
    """The same product with ternary weights, int8 activations and float32 results.

    A weight takes two bits; weights and activations have float32 scales. Operations are those of
    the dense product in bfloat16; a device does about twice as many in int8.
    """
    activations = tokens * (inputs + _FACTOR * (outputs + 1))
    return Work(
        -(-inputs // 4) * outputs + activations + _FACTOR * outputs, 2 * tokens * inputs * outputs
    )


def sparsegpt_update(rows: int, columns: int) -> Work:
    """SparseGPT's sweep over a float32 weight.

    Each column's error goes into all columns to its right. The weight is read and written once, the
    upper inverse factor is read once.
    """
    return Work(8 * rows * columns + 2 * columns * (columns + 1), rows * columns * (columns - 1))


def sparsegpt_block(rows: int, columns: int) -> Work:
    """The same sweep over one block, without the columns beyond it.

    The weight and a mask of bytes are read, the weight and the errors are written.
    """
    size = rows * columns
    return Work((3 * 4 + 1) * size + 2 * columns * (columns + 1), size * (columns - 1))


def attention_decode(batch: int, slots: int, heads: int, kv_heads: int, width: int) -> Work:
    """Attention of one token of each row over a full cache, with each slot's mass.

    Bfloat16 keys, values and queries and the int64 position of each slot are read once; bfloat16
    outputs and float32 mass are written. Each head and slot takes two products.
    """
    a_slot = 2 * _WEIGHT * width + 8 + _FACTOR
    activations = 2 * _WEIGHT * heads * width
    return Work(
        batch * (kv_heads * slots * a_slot + activations), 4 * batch * heads * slots * width
    )


def compare_logits(tokens: int, vocabulary: int) -> Work:
    """Logits compared with those of a reference.

    Two bfloat16 logits of each word and the int64 target of each token are read once; three numbers
    of each token are written.
    """
    return Work(2 * _WEIGHT * tokens * vocabulary + (8 + 2 * _FACTOR + 1) * tokens)


def attention_mass(tokens: int, heads: int, kv_heads: int, width: int) -> Work:
    """The attention that each key of a prompt gets from all queries.

    Bfloat16 queries and keys and int64 positions are read once, float32 sums are written. One
    causal product of queries and keys is counted, although the normaliser takes a second one.
    """
    read = 2 * width * tokens * (heads + kv_heads) + 8 * tokens
    return Work(read + 4 * kv_heads * tokens, heads * width * tokens * (tokens + 1))


def fill_holes(heads: int, slots: int, kept: int, width: int) -> Work:
    """Compaction of bfloat16 keys and values in place.

    A byte of each slot is read, which says whether it is kept. On average `kept (1 - kept / slots)`
    rows of each head are read and written.
    """
    rows = 2 * heads * kept * (slots - kept) / slots
    return Work(heads * slots + round(2 * _WEIGHT * width * rows))


def one_shot(parameters: int, tokens: int, passes: int) -> Work:
    """`passes` forward passes of `tokens` through blocks with `parameters` weights.

    Attention is not counted. The weights are read and written once.
    """
    return Work(2 * _WEIGHT * parameters, 2 * parameters * tokens * passes)

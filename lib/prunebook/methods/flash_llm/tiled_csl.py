"""Tiled-CSL, the format of Flash-LLM: 32 bits for each weight that is not zero.

Xia et al., Flash-LLM (VLDB 2024, arXiv 2309.10285); official packer `csrc/SpMM_API.cu` of
AlibabaResearch/flash-llm at 1d2828a. The weight is cut into tiles of 128 rows and 64 columns, one
row of tiles after the other, and filled up with zeros to whole tiles.

- `words`, int32 `[n]`, has one word for each weight that is not 0: its 16 bits in the lower half,
  and in the upper half the location `64 r + (c ^ 8 (r % 8))` of row r and column c of the tile. A
  tile is filled up to a multiple of four words, the 16 bytes that a thread loads at a time, by the
  first of its places that are zero anyway.
- `offsets`, int32 `[tiles + 2]`, counts the groups of four words before each tile; then follows the
  number of all groups, twice.

Differences from the official packer:

- A weight of any shape is packed; there rows and columns must fill whole tiles, and the kernel
  takes pairs of them for up to 32 tokens.
- NaN is kept; there it is lost. -0.0 comes back as 0.0 in both, and all else bit by bit.
- Where words are put in order, the zeros that fill up a tile stand at other places. In the order
  of the weight they stand at the same ones, and there -0.0 among them keeps its sign.
- Words are put in order by counting, see `bank_order`; there the fullest of 32 banks is searched
  for at each word.

On 42 weights of 0 to 100 % zeros offsets and the non-zero words of each tile are those of the
official packer, compiled for the host.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...errors import UserError
from .bank_order import order_by_bank
from .tile import COLUMNS, PLACES, ROWS, VECTOR, locations


@dataclass(frozen=True)
class TiledCSL:
    """A weight without its zeros.

    words: values and locations, int32 `[n]`; the module says how they are packed.
    offsets: groups of four words before each tile, int32 `[tiles + 2]`.
    shape: shape of the weight, `[out, in]`.
    dtype: dtype of the weight, of 16 bits.
    """

    words: torch.Tensor
    offsets: torch.Tensor
    shape: tuple[int, int]
    dtype: torch.dtype

    @property
    def tiles(self) -> tuple[int, int]:
        """The number of tiles one below the other, and side by side."""
        return -(-self.shape[0] // ROWS), -(-self.shape[1] // COLUMNS)

    @property
    def lengths(self) -> torch.Tensor:
        """The number of words of each tile, int64 `[tiles]`."""
        return VECTOR * self.offsets[:-1].long().diff()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored: `4 words + 4 (tiles + 2)`."""
        return self.words.nbytes + self.offsets.nbytes

    def check(self) -> None:
        """Check that the parts fit each other.

        Raises:
            UserError: they do not.
        """
        words = self.words
        offsets = self.offsets
        size = self.tiles[0] * self.tiles[1] + 2
        fits = (
            words.dtype == offsets.dtype == torch.int32
            and offsets.shape == (size,)
            and not (self.lengths < 0).any()
        )
        if not fits or words.shape != (VECTOR * int(offsets[-1]),):
            parts = f"{words.dtype} {list(words.shape)} and {offsets.dtype} {list(offsets.shape)}"
            raise UserError(
                f"words and offsets are {parts}; {list(self.shape)} needs int32 and {size} offsets"
            )


def pack_tiled_csl(weight: torch.Tensor, reorder: bool = True) -> TiledCSL:
    """Pack a weight, on its device.

    Args:
        weight: `[out, in]`, float16 or bfloat16, of any strides.
        reorder: order the words of a tile so that those stored at a time go to different banks as
            far as possible, the official default; else they stand in the order of their places.

    Raises:
        UserError: no matrix, an empty one, or another dtype.
    """
    is_matrix = weight.ndim == 2 and weight.numel()
    if not is_matrix or weight.dtype not in (torch.float16, torch.bfloat16):
        raise UserError(
            f"weight is {weight.dtype} {list(weight.shape)}; Tiled-CSL holds a matrix [out, in] of "
            "float16 or bfloat16"
        )
    bits = _tile_bits(weight)
    zero = bits & 0x7FFF == 0  # of either sign
    # A tile stores what is not zero, and its first zeros up to a multiple of four words.
    stored = ~zero | (zero.cumsum(1, dtype=torch.int16) <= zero.sum(1, keepdim=True) % VECTOR)
    # A word: the value in the lower half, the location in the upper.
    location = locations(torch.arange(PLACES, device=weight.device)).to(torch.int16).expand_as(bits)
    words = torch.stack([bits.masked_fill(zero, 0), location], 2).view(torch.int32).squeeze(2)
    lengths = stored.sum(1)
    words = order_by_bank(words, stored, lengths) if reorder else words[stored]
    return TiledCSL(words, offsets_of(lengths), tuple(weight.shape), weight.dtype)


def _tile_bits(weight: torch.Tensor) -> torch.Tensor:
    """The bits of the weight, tile by tile, with zeros around it: int16 `[tiles, 8192]`."""
    missing_rows = -weight.shape[0] % ROWS
    missing_columns = -weight.shape[1] % COLUMNS
    bits = weight.contiguous().view(torch.int16)
    whole = F.pad(bits, (0, missing_columns, 0, missing_rows))
    tiles = whole.unflatten(0, (-1, ROWS)).unflatten(2, (-1, COLUMNS)).transpose(1, 2)
    return tiles.reshape(-1, PLACES)


def offsets_of(lengths: torch.Tensor) -> torch.Tensor:
    """The `offsets` of a `TiledCSL` with this number of words in each tile."""
    return (F.pad(lengths, (1, 1)).cumsum(0) // VECTOR).to(torch.int32)


def unpack_tiled_csl(packed: TiledCSL) -> torch.Tensor:
    """The weight `[out, in]`, zeros included.

    Raises:
        UserError: what `TiledCSL.check` raises.
    """
    packed.check()
    return dense_rows(packed, 0, packed.tiles[0])


def tiled_csl_linear(x: torch.Tensor, packed: TiledCSL) -> torch.Tensor:
    """`F.linear(x, weight)`, read as sparse and multiplied as dense.

    Each row of tiles is rebuilt with its zeros, then multiplied in the dtype of x.

    Args:
        x: `[..., in]`.
        packed: the weight.

    Raises:
        UserError: what `TiledCSL.check` raises.
    """
    packed.check()
    rows = range(packed.tiles[0])
    return torch.cat([F.linear(x, dense_rows(packed, i, i + 1).to(x.dtype)) for i in rows], -1)


def dense_rows(packed: TiledCSL, first: int, end: int) -> torch.Tensor:
    """Rows of tiles as a dense matrix, `[up to 128 (end - first), in]`.

    Args:
        packed: the weight.
        first: the first row of tiles.
        end: the row of tiles after the last.
    """
    across = packed.tiles[1]
    begin = VECTOR * int(packed.offsets[first * across])
    stop = VECTOR * int(packed.offsets[end * across])
    # A word is a value and a location in its tile.
    value, location = packed.words[begin:stop].view(torch.int16).view(-1, 2).unbind(1)
    lengths = packed.lengths[first * across : end * across]
    starts = torch.arange(0, len(lengths) * PLACES, PLACES, device=lengths.device)
    tile = starts.repeat_interleave(lengths)
    # Scatter into tiles of zeros, then put chunks of columns back from locations to places.
    tiles = value.new_zeros(len(lengths) * PLACES)
    tiles = tiles.index_put_((tile + location,), value).view(-1, PLACES)
    tiles = tiles[:, locations(torch.arange(PLACES, device=tiles.device))]
    # Tiles side by side make rows; what filled up the last tiles is cut off.
    rows = tiles.view(-1, across, ROWS, COLUMNS).transpose(1, 2).reshape(-1, across * COLUMNS)
    inside = rows[: packed.shape[0] - first * ROWS, : packed.shape[1]]
    return inside.contiguous().view(packed.dtype)

"""Weights with zeros anywhere as Flash-LLM's Tiled-CSL, 32 bits for each that is not zero (arXiv
2309.10285, and `csrc/SpMM_API.cu` of AlibabaResearch/flash-llm at commit 1d2828a).

The weight is cut into tiles of 128 rows and 64 columns, one row of tiles after the other; zeros
make up whole tiles.

* `words`, int32 `[n]`, one for each weight that is not 0: its 16 bits in the lower half, in the
  upper the location `64 r + (c ^ 8 (r % 8))` of row r and column c of the tile. Places that are
  zero anyway, the tile's first, fill it to a multiple of four words: 16 bytes, which a thread loads
  at a time.
* `offsets`, int32 `[tiles + 2]`: how many times four words come before each tile, then all of them,
  twice.

Unpacking is exact bit by bit for what is not 0. Zeros are not stored: -0.0 comes back as 0.0, as
with the official packer, which loses NaN, too. That one takes whole tiles only, and its kernel
pairs of them for up to 32 tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...errors import UserError

ROWS = 128  # of a tile
COLUMNS = 64
VECTOR = 4  # words that a thread loads at a time, threads that store at a time, banks
LANES = 32
BANKS = 32
PLACES = ROWS * COLUMNS
TURN = VECTOR * LANES


@dataclass(frozen=True)
class TiledCSL:
    """A weight `[out, in]` of `shape` and 16-bit `dtype` without its zeros, as the top of the file
    says."""

    words: torch.Tensor
    offsets: torch.Tensor
    shape: tuple[int, int]
    dtype: torch.dtype

    @property
    def tiles(self) -> tuple[int, int]:
        """How many there are one below the other, and side by side."""
        return -(-self.shape[0] // ROWS), -(-self.shape[1] // COLUMNS)

    @property
    def lengths(self) -> torch.Tensor:
        """Words of each tile, int64 `[tiles]`."""
        return VECTOR * self.offsets[:-1].long().diff()

    @property
    def nbytes(self) -> int:
        """All that is stored: `4 words + 4 (tiles + 2)`."""
        return self.words.nbytes + self.offsets.nbytes

    def check(self) -> None:
        """Raise a `UserError` unless the parts fit each other."""
        words = self.words
        offsets = self.offsets
        size = self.tiles[0] * self.tiles[1] + 2
        fits = (
            words.dtype == offsets.dtype == torch.int32
            and offsets.shape == (size,)
            and not (self.lengths < 0).any()
        )
        if not fits or words.shape != (VECTOR * int(offsets[-1]),):
            given = f"{words.dtype} {list(words.shape)} and {offsets.dtype} {list(offsets.shape)}"
            raise UserError(
                f"words and offsets are {given}; {list(self.shape)} needs int32 and {size} offsets"
            )


def locations(place: torch.Tensor) -> torch.Tensor:
    """The location of place `64 r + c`, or the other way round: chunks of eight columns change
    places by row, so that those below each other lie in different banks."""
    return place ^ place // COLUMNS % 8 * 8


def pack_tiled_csl(weight: torch.Tensor, reorder: bool = True) -> TiledCSL:
    """Pack `weight [out, in]`, float16 or bfloat16 of any strides, on its device.

    Args:
        reorder: order the words of a tile so that those stored at a time go to different banks as
            far as possible, the official default; else they stand in the order of their places.

    Raises:
        UserError: no matrix, an empty one, or another dtype.
    """
    if (
        weight.ndim != 2
        or not weight.numel()
        or weight.dtype not in (torch.float16, torch.bfloat16)
    ):
        given = f"{weight.dtype} {list(weight.shape)}"
        raise UserError(
            f"weight is {given}; Tiled-CSL holds a matrix [out, in] of float16 or bfloat16"
        )
    whole = F.pad(
        weight.contiguous().view(torch.int16),
        (0, -weight.shape[1] % COLUMNS, 0, -weight.shape[0] % ROWS),
    )
    bits = (
        whole.unflatten(0, (-1, ROWS))
        .unflatten(2, (-1, COLUMNS))
        .transpose(1, 2)
        .reshape(-1, PLACES)
    )
    zero = bits & 0x7FFF == 0  # of either sign
    stored = ~zero | (zero.cumsum(1, dtype=torch.int16) <= zero.sum(1, keepdim=True) % VECTOR)
    location = locations(torch.arange(PLACES, device=weight.device)).to(torch.int16).expand_as(bits)
    words = torch.stack([bits.masked_fill(zero, 0), location], 2).view(torch.int32).squeeze(2)
    lengths = stored.sum(1)
    words = _reordered(words, stored, lengths) if reorder else words[stored]
    return TiledCSL(words, offsets_of(lengths), tuple(weight.shape), weight.dtype)


def _reordered(words: torch.Tensor, stored: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The official order: 32 at a time, each the last of the bank that is then fullest. So words
    leave by how many of their bank come before, most first, then by bank; that is counted, not
    searched for."""
    places = locations(torch.arange(PLACES, device=words.device))
    by_bank = places.view(ROWS, BANKS, 2).transpose(0, 1).flatten()  # a bank is two columns wide
    words, stored = (each[:, by_bank].unflatten(1, (BANKS, -1)) for each in (words, stored))
    tile, bank, _ = stored.nonzero(as_tuple=True)
    before = stored.cumsum(2, dtype=torch.int16)[stored].long() - 1
    stacks = words.new_empty(len(words), PLACES // BANKS, BANKS)
    stacks[tile, -1 - before, bank] = words[stored]
    height = torch.arange(PLACES // BANKS, 0, -1, device=words.device)[:, None]
    taken = stacks[height <= stored.sum(2)[:, None]]
    # The vectors after the last whole turn of the lanes are filled first, and all groups of lanes
    # from behind.
    length = lengths.repeat_interleave(lengths)
    at = within(lengths)
    rest = length % TURN
    turn = at // TURN
    part = at % VECTOR
    later = (length - rest) // LANES - 1 - turn * VECTOR - part  # groups of 32 after this one
    source = torch.where(
        at < length - rest, rest + LANES * later, (VECTOR - 1 - part) * (rest // VECTOR)
    )
    return taken[torch.arange(len(taken), device=words.device) - at + source + at % TURN // VECTOR]


def within(lengths: torch.Tensor) -> torch.Tensor:
    """0, 1, ... in each of segments of these lengths, one after the other."""
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    return torch.arange(len(starts), device=starts.device) - starts


def offsets_of(lengths: torch.Tensor) -> torch.Tensor:
    """The `offsets` of a `TiledCSL` with so many words in each tile."""
    return (F.pad(lengths, (1, 1)).cumsum(0) // VECTOR).to(torch.int32)


def unpack_tiled_csl(packed: TiledCSL) -> torch.Tensor:
    """The weight `[out, in]`, zeros included; errors as `TiledCSL.check`."""
    packed.check()
    return _rebuilt(packed, 0, packed.tiles[0])


def tiled_csl_linear(x: torch.Tensor, packed: TiledCSL) -> torch.Tensor:
    """`F.linear(x [..., in], weight)`, read as sparse and multiplied as dense: each row of tiles is
    rebuilt with its zeros, then multiplied in the dtype of x. Errors as `TiledCSL.check`."""
    packed.check()
    return torch.cat(
        [F.linear(x, _rebuilt(packed, i, i + 1).to(x.dtype)) for i in range(packed.tiles[0])], -1
    )


def _rebuilt(packed: TiledCSL, first: int, end: int) -> torch.Tensor:
    """Rows of tiles from `first` up to `end`, dense: `[up to 128 (end - first), in]`."""
    across = packed.tiles[1]
    begin, stop = (VECTOR * int(packed.offsets[row * across]) for row in (first, end))
    value, location = packed.words[begin:stop].view(torch.int16).view(-1, 2).unbind(1)
    lengths = packed.lengths[first * across : end * across]
    tile = torch.arange(0, len(lengths) * PLACES, PLACES, device=lengths.device).repeat_interleave(
        lengths
    )
    dense = (
        value.new_zeros(len(lengths) * PLACES)
        .index_put_((tile + location,), value)
        .view(-1, PLACES)
    )
    dense = dense[:, locations(torch.arange(PLACES, device=dense.device))]
    dense = dense.view(-1, across, ROWS, COLUMNS).transpose(1, 2).reshape(-1, across * COLUMNS)
    return (
        dense[: packed.shape[0] - first * ROWS, : packed.shape[1]].contiguous().view(packed.dtype)
    )

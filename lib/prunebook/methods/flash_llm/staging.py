"""What Flash-LLM's kernel does with the words of a tile, counted: registers that hold them, banks
that they go to."""

import torch

from .tiled_csl import BANKS, LANES, PLACES, TURN, VECTOR, TiledCSL, offsets_of, within

STAGED = 4096  # words of a tile that 128 threads hold, in 32 registers each


def staged(packed: TiledCSL) -> TiledCSL:
    """What is left if only the first `STAGED` words of each tile are read: our reading, not run, of
    the official kernel for tiles of 128 rows (`SpMM_CopyFromGlobalToReg`). For 256 the surplus
    takes the registers of the tile below."""
    kept = packed.words[within(packed.lengths) < STAGED]
    return TiledCSL(kept, offsets_of(packed.lengths.clamp(max=STAGED)), packed.shape, packed.dtype)


def bank_loads(packed: TiledCSL) -> torch.Tensor:
    """How many words each group of up to 32 stores into each bank, int64 `[groups, 32]`, without
    empty groups. Lane l loads the four words from `128 g + 4 l` on; all lanes store their first
    words at a time, and so on."""
    at = within(packed.lengths)
    lengths = packed.lengths
    tile = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    group = tile * (PLACES // LANES) + at // TURN * VECTOR + at % VECTOR
    bank = (packed.words.long() >> 17) % BANKS  # half the location, as a bank is two columns wide
    loads = torch.bincount(group * BANKS + bank, minlength=len(lengths) * PLACES).view(-1, BANKS)
    return loads[loads.any(1)]

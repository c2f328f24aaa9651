"""What Flash-LLM's kernel does with the words of a tile: where they are held, where they go."""

import torch

from .tile import BANKS, LANES, PLACES, TURN, VECTOR, within
from .tiled_csl import TiledCSL, offsets_of

STAGED = 4096  # words of a tile that 128 threads hold, in 32 registers each


def staged(packed: TiledCSL) -> TiledCSL:
    """What is read of a weight if only the first `STAGED` words of each tile are.

    This is our reading, not run, of the official kernel for tiles of 128 rows
    (`SpMM_CopyFromGlobalToReg`). For 256 rows the surplus takes the registers of the tile below.

    Args:
        packed: the weight.
    """
    kept = packed.words[within(packed.lengths) < STAGED]
    return TiledCSL(kept, offsets_of(packed.lengths.clamp(max=STAGED)), packed.shape, packed.dtype)


def bank_loads(packed: TiledCSL) -> torch.Tensor:
    """How many words each group of up to 32 threads stores into each bank.

    Thread l loads the four words from `128 g + 4 l` on. All threads of a group store their first
    words at a time, then their second, and so on.

    Args:
        packed: the weight.

    Returns:
        int64 `[groups, 32]`, without empty groups.
    """
    lengths = packed.lengths
    at = within(lengths)
    tile = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    group = tile * (PLACES // LANES) + at // TURN * VECTOR + at % VECTOR
    # Half the location, which starts at bit 16, as a bank is two columns wide.
    bank = (packed.words.long() >> 17) % BANKS
    loads = torch.bincount(group * BANKS + bank, minlength=len(lengths) * PLACES).view(-1, BANKS)
    return loads[loads.any(1)]

"""The tile of Tiled-CSL: its size, how its words are stored, and where its weights stand.

Xia et al., Flash-LLM (VLDB 2024, arXiv 2309.10285); official packer `csrc/SpMM_API.cu` of
AlibabaResearch/flash-llm at 1d2828a.
"""

import torch

ROWS = 128  # rows of a tile
COLUMNS = 64  # columns of a tile
PLACES = ROWS * COLUMNS
VECTOR = 4  # words that a thread loads at a time
LANES = 32  # threads that store at a time
BANKS = 32  # banks of shared memory, each two columns wide
TURN = VECTOR * LANES  # words that the threads load together


def locations(place: torch.Tensor) -> torch.Tensor:
    """The location of a place `64 r + c`, or the place of a location.

    Chunks of eight columns change places by row, so that those below each other lie in different
    banks of shared memory.

    Args:
        place: int, any shape.
    """
    return place ^ place // COLUMNS % 8 * 8


def within(lengths: torch.Tensor) -> torch.Tensor:
    """0, 1, ... in each of segments of these lengths, one after the other."""
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    return torch.arange(len(starts), device=starts.device) - starts

"""The order of the words of a tile, in which those that are stored at a time differ in their bank.

Xia et al., Flash-LLM (VLDB 2024, arXiv 2309.10285); official packer `csrc/SpMM_API.cu` of
AlibabaResearch/flash-llm at 1d2828a. The format does not depend on the order; only the speed of the
kernel does.
"""

import torch

from .tile import BANKS, LANES, PLACES, ROWS, TURN, VECTOR, locations, within


def order_by_bank(words: torch.Tensor, stored: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The words in the official order, in which 32 that are stored at a time differ in their bank.

    The official packer takes the last word of the bank that is then fullest, one after the other.
    So words leave by how many of their bank come before them, most first, then by bank. That is
    counted here instead of searched for.

    Args:
        words: a word for each place, int32 `[tiles, 8192]`.
        stored: which of them are stored, bool `[tiles, 8192]`.
        lengths: number of those of each tile, `[tiles]`.

    Returns:
        int32 `[n]`, the stored words of all tiles.
    """
    # [tiles, banks, places of a bank]; a bank is two columns wide
    places = locations(torch.arange(PLACES, device=words.device))
    by_bank = places.view(ROWS, BANKS, 2).transpose(0, 1).flatten()
    words = words[:, by_bank].unflatten(1, (BANKS, -1))
    stored = stored[:, by_bank].unflatten(1, (BANKS, -1))
    # Each bank is a stack with its first word at the bottom; layers leave from the top.
    tile, bank, _ = stored.nonzero(as_tuple=True)
    before = stored.cumsum(2, dtype=torch.int16)[stored].long() - 1
    stacks = words.new_empty(len(words), PLACES // BANKS, BANKS)
    stacks[tile, -1 - before, bank] = words[stored]
    height = torch.arange(PLACES // BANKS, 0, -1, device=words.device)[:, None]
    ordered = stacks[height <= stored.sum(2)[:, None]]
    return ordered[_lane_order(lengths)]


def _lane_order(lengths: torch.Tensor) -> torch.Tensor:
    """Which word, in the order of the banks, stands at each place of the words of all tiles.

    The words after the last whole turn of the lanes are filled first, and all groups of lanes from
    behind.
    """
    length = lengths.repeat_interleave(lengths)
    at = within(lengths)
    rest = length % TURN
    part = at % VECTOR  # which of the four words of a thread
    turn = at // TURN
    # groups of 32 lanes after this one
    later = (length - rest) // LANES - 1 - turn * VECTOR - part
    group = torch.where(
        at < length - rest, rest + LANES * later, (VECTOR - 1 - part) * (rest // VECTOR)
    )
    lane = at % TURN // VECTOR
    first_of_tile = torch.arange(len(at), device=at.device) - at
    return first_of_tile + group + lane

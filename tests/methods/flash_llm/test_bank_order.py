"""The order by bank, against the search that it replaces."""

import torch

from prunebook.methods.flash_llm.bank_order import order_by_bank
from prunebook.methods.flash_llm.tile import BANKS, LANES, PLACES, locations


def bank_of(words):
    """The bank of words that are their own place: two columns of a location make one."""
    return locations(words) % (2 * BANKS) // 2


def test_words_stored_at_a_time_are_of_different_banks_in_a_whole_tile():
    words = torch.arange(PLACES, dtype=torch.int32)[None]
    stored = torch.ones(1, PLACES, dtype=torch.bool)
    ordered = order_by_bank(words, stored, stored.sum(1))
    assert sorted(ordered.tolist()) == list(range(PLACES))
    # A thread loads four words at a time, and stores them one after the other with the others.
    turns = ordered.view(-1, LANES, 4).transpose(1, 2)
    banks = bank_of(turns).sort(dim=2).values
    assert (banks == torch.arange(BANKS)).all()


def test_only_what_is_stored_is_ordered():
    generator = torch.Generator().manual_seed(0)
    words = torch.arange(2 * PLACES, dtype=torch.int32).view(2, PLACES)
    stored = torch.rand(2, PLACES, generator=generator) < 0.3
    stored[:, :4] = True
    # Each tile holds a multiple of four words.
    for tile in stored:
        surplus = int(tile.sum()) % 4
        tile[tile.nonzero()[4 : 4 + surplus, 0]] = False
    lengths = stored.sum(1)
    ordered = order_by_bank(words, stored, lengths)
    for part, tile, own in zip(ordered.split(lengths.tolist()), words, stored, strict=True):
        assert sorted(part.tolist()) == tile[own].tolist()

"""Places and locations of a tile, and counting inside segments."""

import torch

from prunebook.methods.flash_llm.tile import locations, within


def test_locations_are_a_permutation_and_their_own_inverse():
    place = torch.arange(8192)
    assert torch.equal(locations(locations(place)), place)
    assert torch.equal(locations(place) // 64, place // 64)
    assert locations(place).max() == 8191


def test_places_are_counted_from_0_in_each_segment():
    assert within(torch.tensor([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]

"""What the kernel does with a tile: the banks that words go to, and what staging does not hold."""

import torch

from prunebook.methods.flash_llm.staging import STAGED, bank_loads, staged
from prunebook.methods.flash_llm.tiled_csl import pack_tiled_csl, unpack_tiled_csl


def sparse(rows, columns, sparsity):
    """A random float16 matrix, of whose weights this fraction is 0."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator).half()
    return weight.masked_fill(torch.rand(rows, columns, generator=generator) < sparsity, 0)


def test_reordering_keeps_the_words_and_parts_the_banks():
    weight = sparse(256, 256, 0.5)
    plain, reordered = (pack_tiled_csl(weight, reorder) for reorder in (False, True))
    start = 0
    for length in plain.lengths.tolist():
        of_tile = slice(start, start + length)
        assert torch.equal(
            plain.words[of_tile].sort().values, reordered.words[of_tile].sort().values
        )
        start += length
    worst = [bank_loads(packed).amax(1) for packed in (plain, reordered)]
    assert worst[1].float().mean() < 1.3 < 2.5 < worst[0].float().mean()


def test_even_banks_have_no_conflict():
    """Every second row kept: 128 words in each bank."""
    weight = sparse(128, 64, 0)
    weight[::2] = 0
    loads = bank_loads(pack_tiled_csl(weight))
    assert loads.shape == (128, 32)
    assert (loads == 1).all()


def test_bank_loads_of_a_tile_in_the_order_of_places():
    """Lane l has words 4 l to 4 l + 3, so a group takes every fourth column of two rows: 16 banks,
    two each."""
    loads = bank_loads(pack_tiled_csl(torch.ones(128, 64, dtype=torch.float16), reorder=False))
    assert loads.shape == (256, 32)
    assert (loads.sum(1) == 32).all()
    assert loads.unique().tolist() == [0, 2]


def test_a_tile_that_staging_does_not_hold_is_kept_and_can_be_cut():
    weight = torch.zeros(128, 128, dtype=torch.float16)
    weight[:64, :64] = 1
    weight[64:, 64:] = 2
    weight[0, 64] = 3  # the second tile has 4,097
    packed = pack_tiled_csl(weight, reorder=False)
    assert packed.lengths.tolist() == [4096, 4100]
    assert torch.equal(unpack_tiled_csl(packed), weight)
    cut = staged(packed)
    assert cut.lengths.tolist() == [4096, STAGED]
    assert torch.equal(cut.words, packed.words[:8192])
    lost = unpack_tiled_csl(cut) != weight
    assert weight[lost].tolist() == [2] * 4  # the three zeros that fill it up are read, too
    assert torch.equal(staged(cut).words, cut.words)

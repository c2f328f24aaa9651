"""Algorithmic work in closed form, and the floor that follows from it."""

import pytest

from prunebook.bench import work


def test_bytes_and_operations():
    assert work.select(4096, 4096, "magnitude").bytes == 4 * 4096**2
    assert work.select(2, 3, "ria").bytes == 4 * 6 + 4 * (2 * 3 + 2)
    packed = work.pack_n_of_m(4096, 4096, 2, 4, "magnitude")
    assert packed.bytes == 3.125 * 4096**2
    assert work.dense_product(1, 11008, 4096) == work.Work(
        2 * 4096 * 11008 + 2 * (4096 + 11008), 2 * 4096 * 11008
    )
    assert work.product_2_4(1, 11008, 4096).bytes - 2 * (4096 + 11008) == 9 * 4096 * 11008 / 8
    # two bytes of codes a row of five, int8 in and float32 out, a scale a row and a token
    assert work.ternary_product(2, 3, 5).bytes == 2 * 3 + 2 * 5 + 4 * (2 * 3 + 3 + 2)
    assert work.sparsegpt_update(3, 4).flop == 2 * 3 * (3 + 2 + 1)
    assert work.sparsegpt_update(3, 4).bytes == 2 * 4 * 12 + 4 * (1 + 2 + 3 + 4)
    assert work.sparsegpt_block(3, 4).bytes == 3 * 4 * 12 + 12 + 4 * (1 + 2 + 3 + 4)
    assert work.sparsegpt_block(3, 4).flop == work.sparsegpt_update(3, 4).flop
    assert work.compare_logits(3, 5).bytes == 2 * 2 * 15 + 3 * (8 + 4 + 4 + 1)
    # two starts, 65 bytes of bits and 16 values a row of 520 inputs with 11 weights other than zero
    assert work.product_bitmap(3, 2, 520, 11).bytes == 2 * (2 * 4 + 65 + 2 * 16) + 2 * 3 * (520 + 2)
    assert work.product_bitmap(3, 2, 520, 11).flop == work.dense_product(3, 2, 520).flop
    # queries and keys, positions, sums; query i meets i + 1 keys of width 5 in each of 4 heads
    assert work.attention_mass(3, 4, 2, 5).bytes == 2 * 3 * 5 * (4 + 2) + 8 * 3 + 4 * 2 * 3
    assert work.attention_mass(3, 4, 2, 5).flop == 4 * (1 + 2 + 3) * 2 * 5
    # of 8 slots 6 are kept, and 6 / 4 of them lie above the sixth: keys and values, read and
    # written
    assert work.fill_holes(2, 8, 6, 5).bytes == 2 * 8 + 2 * 1.5 * 2 * 2 * 2 * 5
    # a row, three slots, two heads of width four that share a KV head
    assert work.attention_decode(1, 3, 2, 1, 4) == work.Work(
        3 * (4 * 4 + 8 + 4) + 4 * 2 * 4, 4 * 2 * 3 * 4
    )
    assert work.one_shot(10, 7, passes=2) == work.Work(40, 280)


def test_a_floor_is_the_larger_of_two_times():
    assert work.select(4096, 4096, "magnitude").floor(3e12, 8e14) == pytest.approx(
        22.4e-6, rel=1e-2
    )
    assert work.product_2_4(1, 11008, 4096).floor(3e12, 8e14) == pytest.approx(16.9e-6, rel=1e-2)
    assert work.product_2_4(4096, 11008, 4096).floor(3e12, 8e14) == pytest.approx(462e-6, rel=1e-2)
    assert work.ternary_product(1, 22016, 4096).floor(3e12, 8e14) == pytest.approx(7.5e-6, rel=2e-2)
    assert work.product_bitmap(1, 11008, 4096, 2048).floor(3e12, 8e14) == pytest.approx(
        16.9e-6, rel=1e-2
    )
    assert work.attention_mass(32768, 32, 32, 128).floor(3e12, 8e14) == pytest.approx(
        5.5e-3, rel=1e-2
    )
    assert work.fill_holes(8, 32768, 16384, 128).floor(3e12, 8e14) == pytest.approx(
        22.4e-6, rel=1e-2
    )
    assert work.Work(100, 200).intensity == 2

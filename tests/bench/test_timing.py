"""Percentiles, rounds, the order of samples, and algorithmic work in closed form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench.fakes import measured, timed

from prunebook.bench import work
from prunebook.bench.table import fastest_baseline
from prunebook.bench.timing import interleaved, percentile, rounds_for, spread


def test_percentiles_by_hand():
    samples = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [percentile(samples, share) for share in (0, 0.2, 0.5, 0.8, 1)] == pytest.approx(
        [1, 1.8, 3, 4.2, 5]
    )
    assert spread(samples).median == 3
    assert spread([7.0]) == spread([7.0, 7.0, 7.0])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_percentiles_are_those_of_numpy(samples, share):
    import numpy as np

    assert percentile(samples, share) == pytest.approx(
        float(np.quantile(samples, share)), rel=1e-9, abs=1e-6
    )


def test_rounds_fill_the_time_within_bounds():
    assert rounds_for([1e6]) == 3
    assert rounds_for([10_000, 10_000]) == 20
    assert rounds_for([1.0, 2.0]) == 50


def test_samples_are_taken_in_turn():
    log = []

    def sampler(name):
        return lambda: log.append(name) or float(len(log))

    found = interleaved({name: sampler(name) for name in "ABC"}, 2)
    assert "".join(log) == "ABCABC"
    assert found == {"A": [1, 4], "B": [2, 5], "C": [3, 6]}


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


def test_speed_ups_are_of_what_was_timed():
    moved = work.Work(1000)
    lost = timed("missing", 1.0, moved, status="missing", device=None)
    case = measured(
        "k", {"n": 1}, moved, timed("ours", 20.0, moved), timed("fast", 10.0, moved), lost
    )
    assert case.speedups() == {"fast": 0.5}


def test_speed_ups_are_over_rivals_alone():
    moved = work.Work(1000)
    form, control = (timed(role, 5.0, moved, role=role) for role in ("own", "control"))
    case = measured(
        "k", {"n": 1}, moved, timed("ours", 20.0, moved), form, timed("fast", 10.0, moved), control
    )
    assert case.speedups() == {"fast": 0.5}
    assert fastest_baseline(case).name == "fast"
    assert [row.name for row in case.others] == ["own", "control"]


def test_nothing_is_faster_than_ours_that_is_not_timed():
    moved = work.Work(1000)
    case = measured(
        "k", {"n": 1}, moved, timed("ours", 20.0, moved, status="wrong"), timed("fast", 10.0, moved)
    )
    assert case.speedups() == {}

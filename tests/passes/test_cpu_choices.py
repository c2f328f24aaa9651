"""Which of two ways to compute a product is taken: only a clearly faster one replaces the
default."""

import pytest
import torch
import torch.nn.functional as F

from prunebook.passes import cpu_choices
from prunebook.passes.cpu_choices import is_clearly_faster, linear_library, onednn_linear


class Clock:
    """Stands in for the time: every function adds its own duration, which may differ from call to
    call."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(cpu_choices.time, "perf_counter", lambda: self.now)

    def work(self, *durations):
        left = list(durations)

        def run():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.mark.parametrize(
    ("seconds", "faster"), [(0.89, True), (0.91, False), (1.0, False), (2.0, False)]
)
def test_only_a_clearly_faster_way_replaces_the_default(monkeypatch, seconds, faster):
    clock = Clock(monkeypatch)
    assert is_clearly_faster(clock.work(seconds), clock.work(1.0)) is faster


def test_the_first_round_and_slow_rounds_do_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    assert not is_clearly_faster(clock.work(0.1, 1.0), clock.work(1.0))
    assert is_clearly_faster(clock.work(9.0, 9.0, 9.0, 0.5, 9.0), clock.work(1.0))


def test_the_choice_is_made_once_and_draws_nothing(monkeypatch):
    calls = []
    monkeypatch.setattr(cpu_choices, "is_clearly_faster", lambda *ways: calls.append(ways) or True)
    linear_library.cache_clear()
    try:
        before = torch.get_rng_state()
        assert [linear_library() for _ in range(3)] == ["mkl"] * 3
        assert len(calls) == 1
        for way in calls[0]:
            way()  # both run
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        linear_library.cache_clear()


def test_without_onednn_it_is_mkl(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    linear_library.cache_clear()
    try:
        assert linear_library() == "mkl"
    finally:
        linear_library.cache_clear()


def test_a_product_through_onednn_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 33, generator=generator)
    weight = torch.randn(33, 17, generator=generator).T  # strided
    bias = torch.randn(17, generator=generator)
    torch.testing.assert_close(
        onednn_linear(x, weight, bias), F.linear(x, weight, bias), rtol=1e-5, atol=1e-5
    )

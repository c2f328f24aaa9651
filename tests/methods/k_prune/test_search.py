"""The mask search: prefix sums beside a plain scan, and what cannot be met."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebook.errors import UserError
from prunebook.methods.k_prune.search import survivors


def quadratic(scores, flops, budget):
    """The lowest unit goes, again and again, until the rest fits."""
    alive = [(score, s, u) for s, of in enumerate(scores) for u, score in enumerate(of.tolist())]
    while sum(flops[s] for _, s, _ in alive) > budget:
        alive.remove(min(alive))
    return [u for _, s, u in alive if s == 0]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=4), st.data()
)
def test_prefix_sums_find_what_a_scan_finds(scores, data):
    tensors = [torch.tensor(of, dtype=torch.float64) for of in scores]
    flops = data.draw(st.lists(st.integers(1, 9), min_size=len(scores), max_size=len(scores)))
    total = sum(f * len(s) for f, s in zip(flops, scores, strict=True))
    budget = data.draw(st.integers(max(flops), total))  # room for one unit at least
    assert survivors(tensors, flops, budget) == quadratic(tensors, flops, budget)


def test_what_must_stay_and_does_not_fit_is_refused():
    scores = [torch.tensor([1.0, torch.inf]), torch.tensor([2.0, 3.0])]
    assert survivors(scores, [10, 1], 10) == [1]
    with pytest.raises(
        UserError, match="9 FLOPs are less than what must stay; the nearest possible is 10"
    ):
        survivors(scores, [10, 1], 9)

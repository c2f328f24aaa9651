"""Budgets: exact counts, and one clear line for what is not allowed."""

import pytest

import prunebook as pb
from prunebook.caches.policy import UNLIMITED, CacheBudget
from prunebook.errors import UserError


@pytest.mark.parametrize(
    ("total", "recent", "prompt", "expected"),
    [
        (0.2, 0.5, 100, (20, 10)),
        (0.2, 0.5, 99, (19, 9)),
        (0.29, 1.0, 100, (29, 29)),
        (0.6, 0.3, 10, (6, 1)),
        (0.5, 0.0, 8, (4, 1)),
        (7, 0.5, 1000, (7, 3)),
        (7, 7, 3, (7, 7)),
        (1, 0.5, 9, (1, 1)),
        (0.5, 3, 8, (4, 3)),
    ],
)
def test_counts(total, recent, prompt, expected):
    assert CacheBudget(total, recent).tokens(prompt) == expected


def test_all_tokens():
    assert CacheBudget(1.0, 0.5).tokens(10) == (UNLIMITED, UNLIMITED // 2)
    assert CacheBudget(1, 0.5).tokens(10) == (1, 1)  # a whole number is tokens


@pytest.mark.parametrize("make", [pb.caches.H2OCache, pb.caches.RandomCache, pb.caches.WindowCache])
@pytest.mark.parametrize("budget", [0, 0.0, -0.1, 1.5, -3, True, "0.2", None, float("nan")])
def test_impossible_budgets(make, budget):
    with pytest.raises(
        UserError, match=r"budget .* is not allowed; use a fraction of the prompt in \(0, 1\]"
    ):
        make(budget)


@pytest.mark.parametrize("recent", [-1, 1.5, -0.1, True, "half", None])
def test_impossible_windows(recent):
    with pytest.raises(
        UserError, match=r"recent .* is not allowed; use a fraction of the budget in \[0, 1\]"
    ):
        pb.caches.H2OCache(0.2, recent)


def test_a_window_larger_than_the_budget():
    with pytest.raises(
        UserError, match="recent 9 is larger than the budget of 8 tokens; use at most 8"
    ):
        pb.caches.H2OCache(8, recent=9)
    with pytest.raises(
        UserError, match="recent 9 is larger than the budget of 8 tokens; use at most 8"
    ):
        CacheBudget(0.2, 9).tokens(40)


def test_a_budget_of_less_than_one_token():
    with pytest.raises(
        UserError, match=r"budget 0.2 of a prompt of 4 tokens is less than one token"
    ):
        CacheBudget(0.2, 0.5).tokens(4)

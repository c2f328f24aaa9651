"""The drawing of a key-value cache, and the positions that it keeps."""

import math

import numpy as np
import pytest
from tests.site.drawings.looking import boxes

from prunebook.errors import UserError
from prunebook.notebook.palette import BLUE, ORANGE
from prunebook.site import drawings
from prunebook.site.drawings.canvas import EMPTY


def held(logits, budget, window):
    return [
        np.flatnonzero(row).tolist() for row in drawings.cached_positions(logits, budget, window)
    ]


def test_a_window_keeps_the_newest():
    assert held(np.zeros((4, 4)), budget=2, window=2) == [[0], [0, 1], [1, 2], [2, 3]]


def test_equal_attention_favours_the_oldest():
    assert held(np.zeros((5, 5)), budget=3, window=1) == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 3],
        [0, 1, 4],
    ]


def test_a_heavy_hitter_stays_and_what_left_does_not_return():
    logits = np.zeros((6, 6))
    logits[:, 2] = 5  # attended to from its arrival on
    logits[5, 0] = 50  # gone by then
    assert held(logits, budget=2, window=1) == [[0], [0, 1], [0, 2], [2, 3], [2, 4], [2, 5]]


def test_future_logits_are_not_read():
    logits = np.random.default_rng(0).normal(size=(8, 8))
    changed = np.where(np.tril(np.ones((8, 8))), logits, math.inf)
    assert held(logits, 3, 1) == held(changed, 3, 1)


@pytest.mark.parametrize(("budget", "window"), [(0, 0), (2, 3), (2, -1)])
def test_an_impossible_budget_is_refused(budget, window):
    with pytest.raises(UserError, match=f"^budget {budget} and window {window} are not allowed"):
        drawings.cached_positions(np.zeros((3, 3)), budget, window)


def test_cache_colours_tell_newest_older_and_gone():
    mask = drawings.cached_positions(np.zeros((4, 4)), budget=2, window=1)
    figure = drawings.cache_eviction({"both": mask}, window=1)
    (axis,) = figure.axes
    assert axis.get_title() == "both\n2 held"
    assert [len(boxes(axis, colour)) for colour in (BLUE, ORANGE, EMPTY, "white")] == [4, 3, 3, 6]

"""Figures of the concept pages: what is drawn, counted in the figure itself."""

import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from prunebook.errors import UserError
from prunebook.site import drawings
from prunebook.site.drawings.canvas import BLUE, EMPTY, ORANGE, shades

WEIGHT = np.array([[1.0, -2.0, 3.0, 4.0], [-4.0, 3.0, 2.0, 1.0]])
HALF = np.array([[False, False, True, True], [True, True, False, False]])


def boxes(axis, colour=None):
    """The rectangles of an axis, all or those filled with `colour`."""
    found = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    return [box for box in found if colour is None or to_hex(box.get_facecolor()) == to_hex(colour)]


def words(axis):
    return [text.get_text() for text in axis.texts]


def test_granularity_draws_masks_and_missing_blocks():
    masks = {
        "any": HALF,
        "all kept": np.ones((2, 4), dtype=bool),
        "a row": np.array([[True] * 4, [False] * 4]),
    }
    figure = drawings.granularity(WEIGHT, masks, blocks=[True, False, True, True])
    assert [axis.get_title() for axis in figure.axes] == [
        "any\n50% zero",
        "all kept\n0% zero",
        "a row\n50% zero",
        "whole blocks (depth)\n25% gone",
    ]
    assert [len(boxes(axis, EMPTY)) for axis in figure.axes] == [4, 0, 4, 1]
    gone = boxes(figure.axes[3], EMPTY)[0]
    assert gone.get_y() == pytest.approx(-2.85)  # the second block from the bottom


def test_granularity_refuses_other_shapes():
    with pytest.raises(UserError, match=r"^masks holds 1 entries; this drawing needs 3$"):
        drawings.granularity(WEIGHT, {"any": HALF}, [True])
    masks = {"a": HALF, "b": HALF, "c": HALF.T}
    with pytest.raises(
        UserError, match=r"^mask 'c' has shape \(4, 2\); it must be that of the weight, \(2, 4\)$"
    ):
        drawings.granularity(WEIGHT, masks, [True])


def test_the_palest_weight_is_darker_than_a_zero():
    colours = shades(np.array([[0.001, -1.0]]))
    assert colours[0, 1] == pytest.approx(to_rgb(BLUE))
    assert colours[0, 0].sum() < sum(to_rgb(EMPTY)) - 0.3


def test_codes_are_places_in_the_group():
    row = np.array([0.1, 0.5, 0.6, 0.2, 0.9, 0.1, 0.2, -0.8])
    mask = np.array([0, 1, 1, 0, 1, 0, 0, 1], dtype=bool)
    (axis,) = drawings.n_of_m_row(row, mask, m=4).axes
    codes = [text for text in words(axis) if set(text) <= {"0", "1"} and len(text) == 2]
    assert codes == ["01", "10", "00", "11"]
    assert [words(axis).count(text) for text in ("0.5", "0.6", "0.9", "-0.8", "0")] == [
        2,
        2,
        2,
        2,
        4,
    ]
    assert len(boxes(axis, ORANGE)) == 4


@pytest.mark.parametrize("kept", [[1, 1, 0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 1, 1]])
def test_a_mask_that_is_not_n_of_m_is_refused(kept):
    with pytest.raises(
        UserError, match="does not keep the same number of weights in each group of 4"
    ):
        drawings.n_of_m_row(np.ones(len(kept)), np.array(kept, dtype=bool), m=4)


def test_groups_are_framed_and_rows_counted():
    layers = [WEIGHT, WEIGHT]
    rows = np.array([[True] * 4, [False] * 4])
    figure = drawings.comparison_groups(
        layers, {"row": [HALF, HALF], "layer": [rows, HALF], "model": [rows, rows]}
    )
    frames = [[box for box in boxes(axis) if not box.get_fill()] for axis in figure.axes]
    assert [len(of_axis) for of_axis in frames] == [4, 2, 1]
    assert [frame.get_height() for frame in (frames[0][0], frames[1][0], frames[2][0])] == [1, 2, 5]
    shares = [[text for text in words(axis) if text.endswith("%")] for axis in figure.axes]
    assert shares == [["50%"] * 4, ["0%", "100%", "50%", "50%"], ["0%", "100%"] * 2]
    with pytest.raises(UserError, match="scope 'block' is unknown; use 'row', 'layer', 'model'"):
        drawings.comparison_groups(layers, {"block": [HALF, HALF]})


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


def test_merging_fills_zeros_and_masking_restores_them():
    figure = drawings.lora_merge(WEIGHT * HALF, B=np.ones((2, 1)), A=np.full((1, 4), 0.5))
    assert [axis.get_title() for axis in figure.axes] == [
        "W\n4 of 8 zero",
        "B and A, rank 1\n6 trained",
        "W + BA\n0 of 8 zero",
        "mask ⊙ (W + BA)\n4 of 8 zero",
    ]
    with pytest.raises(
        UserError, match=r"^B A has shape \(2, 3\); it must be that of the weight, \(2, 4\)$"
    ):
        drawings.lora_merge(WEIGHT, B=np.ones((2, 1)), A=np.ones((1, 3)))


def test_errors_of_the_two_weight_case():
    figure = drawings.obs_update([[2, 1], [1, 2]], [1, 3], updated=[0, 3.5])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "first weight zero",
        "trained: error 0",
        "removed: error 2",
        "updated: error 1.5",
    ]
    with pytest.raises(
        UserError, match=r"^updated \[1.0, 3.0\] keeps the first weight; its first entry must be 0$"
    ):
        drawings.obs_update([[2, 1], [1, 2]], [1, 3], updated=[1.0, 3.0])


def test_the_svg_is_whole_and_the_same_each_time():
    first, second = (
        drawings.obs_update([[2, 1], [1, 2]], [1, 3], [0, 3.5])._repr_svg_() for _ in range(2)
    )
    assert first == second
    assert ElementTree.fromstring(first).tag.endswith("svg")


def test_drawing_needs_no_torch_and_no_pyplot():
    code = "import sys, prunebook.site.drawings; assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

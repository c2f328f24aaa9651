"""Drawings of what is zero: what is drawn, counted in the figure itself."""

import numpy as np
import pytest
from tests.site.drawings.looking import HALF, WEIGHT, boxes, words

from prunebook.errors import UserError
from prunebook.notebook.palette import ORANGE
from prunebook.site import drawings
from prunebook.site.drawings.canvas import EMPTY


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

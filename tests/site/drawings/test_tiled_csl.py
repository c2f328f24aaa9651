"""Drawings of Flash-LLM's page: what is drawn, read from the figure itself."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from prunebook.site.drawings import tiled_csl
from prunebook.site.drawings.canvas import EMPTY

PLACES = np.arange(16 * 64).reshape(16, 64)
LOCATIONS = PLACES ^ (PLACES // 64 % 8 * 8)


def colours(axis):
    """The picture of an axis, `[rows, columns, 3]`."""
    return np.asarray(axis.images[0].get_array())


def test_a_tile_is_drawn_before_and_after_its_places_are_permuted():
    kept = np.zeros((16, 64), dtype=bool)
    kept[9, 0] = kept[0, 63] = True
    figure = tiled_csl.tile(kept, LOCATIONS, 584 << 16 | 0x3E00, (9, 0))
    before, after = (colours(axis) for axis in figure.axes[:2])
    drawn = [
        {tuple(place) for place in np.argwhere((each != to_rgb(EMPTY)).any(2))}
        for each in (before, after)
    ]
    assert drawn == [{(9, 0), (0, 63)}, {(9, 8), (0, 63)}]
    assert np.array_equal(before[9, 0], after[9, 8])
    framed = [figure.axes[i].patches[0].get_xy() for i in range(2)]
    assert framed == [(0, 9), (8, 9)]
    words = [text.get_text() for text in figure.axes[2].texts]
    assert "".join(word for word in words if word in "01") == f"{584 << 16 | 0x3E00:032b}"
    assert "location 584" in words


def test_banks_are_told_with_the_mean_of_the_fullest():
    even = np.ones((4, 32), dtype=int)
    uneven = np.zeros((2, 32), dtype=int)
    uneven[0, 3], uneven[1, 5] = 2, 5
    figure = tiled_csl.banks({"even": even, "uneven": uneven})
    titles = [axis.get_title() for axis in figure.axes[:2]]
    assert titles == ["even\n1.00 stores a group", "uneven\n3.50 stores a group"]
    assert np.array_equal(colours(figure.axes[1]), uneven)


def test_storage_has_a_line_for_each_formula_and_points_where_it_was_measured():
    formats = {"half": lambda density: 16 * density, "flat": lambda density: 9 + 0 * density}
    axis = tiled_csl.storage(formats, {"half": {0.5: 8.1}}).axes[0]
    lines = [(line.get_xdata(), line.get_ydata()) for line in axis.lines]
    assert any(np.allclose(y, 16 * (1 - np.asarray(x) / 100)) for x, y in lines if len(x) == 100)
    assert any(np.allclose(y, 9) for x, y in lines if len(x) == 100)
    assert any((list(x), list(y)) == ([50], [8.1]) for x, y in lines)


def test_bounds_gain_the_ratio_of_bytes_left_of_the_ridge_and_nothing_right_of_it():
    roof, gain = tiled_csl.bounds(
        (4096, 4096), (1, 64, 4096), (0.8,), bandwidth=1e12, arithmetic=1e14
    ).axes
    reached = {line.get_label(): np.asarray(line.get_ydata()) for line in roof.lines}
    assert reached["dense"][0] == pytest.approx(1e3, rel=1e-3)  # GFLOP/s at one operation a byte
    assert reached["80% zeros"][0] == pytest.approx(2.5e3, rel=5e-3)
    assert reached["dense"][-1] == reached["80% zeros"][-1] == pytest.approx(1e5)
    tokens = gain.lines[0].get_xdata()
    factor = gain.lines[0].get_ydata()
    assert (tokens[0], tokens[-1]) == (1, 4 * 4096)
    assert factor[0] == pytest.approx(2.5, rel=5e-3)
    assert factor[-1] == 1

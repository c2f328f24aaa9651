"""Figures of timed kernels, read from the figures themselves."""

import pytest
from tests.bench.fakes import RUN, measured, timed
from tests.site.recorded_kernels import recorded_cases

from prunebook.bench import work
from prunebook.site.drawings import kernels as draw


@pytest.fixture
def cases():
    return recorded_cases()


def test_the_figure_of_speed_ups_has_the_losing_shape_left_of_one(cases):
    figure = draw.speedups(cases)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "11008 x 4096, tokens 4096",
        "11008 x 4096, tokens 1",
        "576 x 1536, wanda, 0.5",
    ]
    points = {points.get_label(): points.get_offsets().tolist() for points in axis.collections}
    assert points["dense"] == [[0.5, 0], [1.5, 1]]
    assert points["sort"] == [[50, 2]]
    assert set(points) == {"dense", "sort"}
    assert "prunebook" not in points
    low, high = axis.get_xlim()
    assert low < 0.5
    assert high > 50
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "dense",
        "sort",
        "ours is slower",
    }
    assert "[GB/s]" in draw.bandwidths(cases, RUN).axes[0].get_xlabel()


def test_a_speed_up_of_wall_times_is_hollow():
    moved = work.Work(48_000_000)
    eager = timed("loop", 900.0, moved, mode="eager")
    case = measured(
        "n-of-m", {"rows": 8}, moved, timed("ours", 20.0, moved), timed("topk", 40.0, moved), eager
    )
    figure = draw.speedups([case])
    drawn = {points.get_label(): points for points in figure.axes[0].collections}
    alphas = {
        name: [float(face[3]) for face in points.get_facecolors()] for name, points in drawn.items()
    }
    assert alphas == {"topk": [0.85], "loop": [0], "hollow: by wall time": []}
    assert drawn["loop"].get_offsets().tolist() == [[940 / 60, 0]]


def test_the_roof_is_that_of_the_measured_ceilings(cases):
    figure = draw.roofline(cases[:2], RUN)
    (axis,) = figure.axes
    x, y = axis.lines[0].get_data()
    assert y[0] == pytest.approx(3.0 * x[0])  # TFLOP/s, of FLOP a byte at 3,000 GB/s
    assert y[-1] == 800
    (ours,) = [points for points in axis.collections if points.get_label() == "prunebook"]
    assert ours.get_offsets()[1].tolist() == pytest.approx(
        [cases[1].flop / cases[1].bytes, cases[1].flop / 20e6]
    )
    assert (axis.get_xlabel(), axis.get_ylabel()) == (
        "operations a byte [FLOP/B]",
        "achieved [TFLOP/s]",
    )
    assert figure._repr_svg_() == draw.roofline(cases[:2], RUN)._repr_svg_()


def test_colour_is_never_the_only_difference(cases):
    look = draw._styles(cases)
    assert (
        len({colour for colour, _ in look.values()})
        == len({marker for _, marker in look.values()})
        == len(look)
    )

"""The figures of pages: colours, names of the axes, and what tells series apart without colour."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import colors, pyplot
from tests.notebook.example_gaps import a_gap

from prunebook.notebook import palette


@pytest.fixture
def axis():
    matplotlib.use("agg")
    yield palette.panels()
    pyplot.close("all")


def test_the_colours_are_those_of_okabe_and_ito():
    assert [palette.BLUE, palette.ORANGE, palette.GREEN, palette.VERMILION] == [
        "#0072B2",
        "#E69F00",
        "#009E73",
        "#D55E00",
    ]
    assert [palette.PURPLE, palette.SKY, palette.YELLOW] == ["#CC79A7", "#56B4E9", "#F0E442"]
    assert palette.rgb(palette.ORANGE) == colors.to_rgb("#E69F00")


def test_styles_differ_in_everything():
    for values in zip(*palette.STYLES, strict=True):
        assert len(set(values)) == len(values)


def test_lines(axis):
    palette.lines(
        axis,
        [1, 10, 100],
        {"Wanda": [3, 2, 1], "RIA": np.array([2, 1, 0.5])},
        colours=[palette.VERMILION, palette.BLUE],
        xlabel="budget [tokens]",
        ylabel="perplexity",
        title="Held out",
        log="xy",
        linewidth=0.8,
    )
    first, second = axis.get_lines()
    assert (first.get_color(), first.get_marker()) == (palette.VERMILION, "D")
    assert (second.get_color(), second.get_linestyle()) == (palette.BLUE, "-")
    assert second.get_linewidth() == 0.8
    assert second.get_ydata().tolist() == [2, 1, 0.5]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("budget [tokens]", "perplexity")
    assert (axis.get_xscale(), axis.get_yscale(), axis.get_title()) == ("log", "log", "Held out")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["Wanda", "RIA"]


def test_long_lines_have_no_markers_and_x_may_be_left_out_or_differ(axis):
    palette.lines(axis, None, {"_loss": np.ones(100)})
    palette.lines(
        axis,
        {"a": [1, 2], "b": [5]},
        {"a": [1, 1], "b": [2]},
        colours={"a": "#009E73", "b": "#0072B2"},
    )
    loss, a, b = axis.get_lines()
    assert loss.get_marker() == "None"
    assert loss.get_xdata().tolist() == list(range(100))
    assert (a.get_color(), a.get_marker()) == ("#009E73", "^")
    assert list(b.get_xdata()) == [5]
    assert len(axis.get_legend().get_texts()) == 2


def test_methods_have_their_own_style_and_others_take_what_is_free(axis):
    palette.lines(axis, None, {"no update": [1], "SparseGPT": [2], "Wanda": [3], "RIA": [4]})
    drawn = [(line.get_color(), line.get_marker()) for line in axis.get_lines()]
    assert drawn == [
        (palette.VERMILION, "D"),
        (palette.ORANGE, "s"),
        (palette.BLUE, "o"),
        (palette.GREEN, "^"),
    ]


def test_more_series_than_colours_begin_again(axis):
    palette.lines(axis, None, {str(index): [index] for index in range(9)})
    drawn = [line.get_color() for line in axis.get_lines()]
    assert drawn == [*palette.COLOURS, *palette.COLOURS[:2]]


def test_bars_stand_side_by_side(axis):
    palette.bars(
        axis, ["q", "k"], {"before": [1, 2], "after": [3, 4]}, ylabel="error [%]", rotation=45
    )
    before, after = axis.containers
    assert [bar.get_height() for bar in after] == [3, 4]
    assert before[0].get_x() + before[0].get_width() == pytest.approx(after[0].get_x())
    assert (before[0].get_hatch(), after[0].get_hatch()) == (None, "//")
    assert [text.get_text() for text in axis.get_xticklabels()] == ["q", "k"]
    assert len(axis.get_legend().get_texts()) == 2


def test_bars_of_one_series_need_no_legend(axis):
    palette.bars(axis, ["q", "k"], [1, 2], colours=[palette.GREEN])
    assert axis.get_legend() is None
    assert axis.patches[0].get_facecolor() == colors.to_rgba(palette.GREEN)


def test_scatter(axis):
    palette.scatter(axis, {"kept": ([1, 2], [3, 4])}, xlabel="norm", log="x")
    (points,) = axis.collections
    assert points.get_offsets().tolist() == [[1, 3], [2, 4]]
    assert axis.get_xscale() == "log"


def test_gains_have_95_percent_intervals(axis):
    gaps = [a_gap(0.5, 0.1), a_gap(-0.1, 0.2)]
    palette.gains(axis, [50, 70], gaps, xlabel="sparsity [%]")
    (errors,) = axis.containers
    (bars,) = errors[2]
    # The t quantile at 10 degrees of freedom is 2.228.
    expected = np.array([[50, 0.5 - 0.2228], [50, 0.5 + 0.2228]])
    assert bars.get_segments()[0] == pytest.approx(expected, abs=1e-4)
    assert axis.get_ylabel() == "gain [nats per token]"


def test_reference(axis):
    palette.reference(axis, y=3, label="dense")
    palette.reference(axis, x=1)
    horizontal, vertical = axis.get_lines()
    assert set(horizontal.get_ydata()) == {3}
    assert set(vertical.get_xdata()) == {1}
    assert horizontal.get_color() == palette.BLACK


def test_panels():
    matplotlib.use("agg")
    left, right = palette.panels(2, height=3, sharey=True)
    assert left.figure is right.figure
    assert left.figure.get_size_inches().tolist() == [10, 3]
    pyplot.close("all")


def test_neither_torch_nor_matplotlib_is_loaded_for_the_colours():
    code = (
        "import sys, prunebook.notebook.palette\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

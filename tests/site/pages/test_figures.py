"""What the boards' figures share: one sheet, styles that differ twice, the same SVG every time."""

import xml.etree.ElementTree as ET

import pytest

from prunebook.notebook.method_styles import METHOD_STYLES
from prunebook.site.pages.figures import draw_dense, half_width, new_figure, styles_of, to_svg


def test_a_method_looks_the_same_everywhere_and_no_two_look_alike():
    styles = styles_of(["wanda", "random masks", "sparsegpt", "dense, cut"])
    assert len(set(styles.values())) == 4
    assert styles["wanda"] == METHOD_STYLES["wanda"]
    assert styles_of(["other", "wanda"])["wanda"] == METHOD_STYLES["wanda"]
    assert styles["random masks"] not in METHOD_STYLES.values()


def test_the_interval_of_a_mean_is_that_of_the_t_distribution():
    assert half_width([3.0]) == 0
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, abs=1e-3)


def draw():
    figure, axis = new_figure()
    axis.plot([1, 2], [3, 5], marker="o")
    draw_dense(axis, 4.25)
    axis.legend()
    return figure, axis


def test_the_dense_model_is_a_line_across_the_axes():
    figure, axis = draw()
    assert axis.figure is figure
    line = axis.lines[-1]
    assert (line.get_label(), list(line.get_ydata())) == ("dense", [4.25, 4.25])
    assert list(line.get_xdata()) == [0, 1]  # fractions of the width


def test_the_same_figure_is_the_same_svg():
    svg = to_svg(draw()[0])
    assert to_svg(draw()[0]) == svg
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["viewBox"] == "0 0 576 324"  # 8 by 4.5 inches of 72 points
    assert "dense" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert b"<dc:date>" not in svg

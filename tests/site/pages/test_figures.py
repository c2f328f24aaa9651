"""What the boards' figures share: one sheet, styles that differ twice, the same SVG every time."""

import xml.etree.ElementTree as ET

from prunebook.site.pages.figures import STYLES, draw_dense, new_figure, to_svg


def test_styles_differ_by_colour_and_by_marker():
    colours, markers = zip(*STYLES, strict=True)
    assert len(set(colours)) == len(set(markers)) == len(STYLES) == 6


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

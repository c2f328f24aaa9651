"""What drawings share: shades, SVG, and what they need to be imported."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from prunebook.notebook.palette import BLUE
from prunebook.site import drawings
from prunebook.site.drawings.canvas import EMPTY, shades


def test_the_palest_weight_is_darker_than_a_zero():
    colours = shades(np.array([[0.001, -1.0]]))
    assert colours[0, 1] == pytest.approx(to_rgb(BLUE))
    assert colours[0, 0].sum() < sum(to_rgb(EMPTY)) - 0.3


def test_the_svg_is_whole_and_the_same_each_time():
    first, second = (
        drawings.obs_update([[2, 1], [1, 2]], [1, 3], [0, 3.5])._repr_svg_() for _ in range(2)
    )
    assert first == second
    assert ElementTree.fromstring(first).tag.endswith("svg")


def test_drawing_needs_no_torch_and_no_pyplot():
    code = (
        "import sys, prunebook.site.drawings\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

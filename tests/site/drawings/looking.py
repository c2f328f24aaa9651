"""What stands in a figure: boxes and words of its axes."""

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

WEIGHT = np.array([[1.0, -2.0, 3.0, 4.0], [-4.0, 3.0, 2.0, 1.0]])
HALF = np.array([[False, False, True, True], [True, True, False, False]])


def boxes(axis, colour=None):
    """The rectangles of an axis, all of them or those filled with `colour`."""
    patches = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    return [
        box for box in patches if colour is None or to_hex(box.get_facecolor()) == to_hex(colour)
    ]


def words(axis):
    """The texts of an axis."""
    return [text.get_text() for text in axis.texts]

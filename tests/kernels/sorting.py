"""What the tests of selection share: random matrices, and the rule by a stable sort."""

import math

import numpy as np
from hypothesis import strategies as st

# Many ties, both zeros, infinities and arbitrary values.
SCORE = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1.0, 2.0, math.inf]) | st.floats(
    width=32, allow_nan=False
)
WEIGHT = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 1e-42]) | st.floats(-1e3, 1e3, width=32)


def kept_by_sorting(rows: np.ndarray, removed: int) -> np.ndarray:
    """All but the first `removed` of a stable ascending sort of each row."""
    keep = np.ones(rows.shape, dtype=bool)
    np.put_along_axis(keep, np.argsort(rows, axis=1, kind="stable")[:, :removed], False, axis=1)
    return keep


@st.composite
def matrix(draw, value=SCORE, most=24):
    """A float32 matrix of one to three rows and at most `most` columns."""
    height = draw(st.integers(1, 3))
    width = draw(st.integers(1, most))
    values = draw(st.lists(value, min_size=height * width, max_size=height * width))
    return np.array(values, dtype=np.float32).reshape(height, width)

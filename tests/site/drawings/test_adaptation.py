"""Drawings of weights that change: what is drawn, read from the figure itself."""

import numpy as np
import pytest
from tests.site.drawings.looking import HALF, WEIGHT

from prunebook.errors import UserError
from prunebook.site import drawings


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

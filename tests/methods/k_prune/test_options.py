"""Which options of K-prune are refused, and how."""

import re

import pytest
from tests.refusals import refused_in_one_line

from prunebook.methods import KPrune


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity 1.0 is not allowed; use a number in (0, 1), e.g. 0.2"),
        ({}, "sparsity None is not allowed; use a number in (0, 1), e.g. 0.2"),
        ({"sparsity": 0}, "sparsity 0 is not allowed; use a number in (0, 1), e.g. 0.2"),
        (
            {"sparsity": 0.5, "temperature": 0},
            "temperature 0 is not allowed; use a number above 0, e.g. 2.0",
        ),
        (
            {"sparsity": 0.5, "representational": 0},
            "representational 0 is not allowed; use a number above 0, e.g. 0.00025",
        ),
        ({"sparsity": 0.5, "damping": -1}, "damping -1 is not allowed"),
        ({"sparsity": 0.5, "tune": 1}, "tune 1 is not allowed; use True or False"),
        ({"sparsity": 0.5, "precision": "half"}, "precision 'half' is not allowed for k-prune"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(re.escape(message)):
        KPrune(**options)

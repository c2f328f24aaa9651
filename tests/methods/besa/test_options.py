"""Which options of BESA are refused, and how."""

import pytest
from tests.refusals import refused_in_one_line

from prunebook.methods import BESA


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": None}, "sparsity None is not allowed"),
        ({"sparsity": 1.0}, "sparsity 1.0 is not allowed"),
        (
            {"sparsity": 0},
            r"sparsity 0 is not allowed for besa, which divides by it; use a number in \(0, 1\)",
        ),
        (
            {"sparsity": 0.7},
            "sparsity 0.7 is out of reach: with the sigmoid every rate lies between 0.376 and "
            "0.624; use sigmoid=False",
        ),
        ({"sparsity": 0.3}, "sparsity 0.3 is out of reach"),
        (
            {"granularity": "column"},
            "granularity 'column' is not allowed for besa; use 'row' or 'layer'",
        ),
        (
            {"reference": "teacher"},
            "reference 'teacher' is not allowed for besa; use 'dense' or 'pruned'",
        ),
        ({"precision": "slow"}, "precision 'slow' is not allowed for besa; use 'exact' or 'fast'"),
        ({"penalty": -1}, "penalty -1 is not allowed; use a number >= 0"),
        ({"penalty": "5"}, "penalty '5' is not allowed"),
        ({"epochs": 0}, "epochs 0 is not allowed; use a whole number >= 1"),
        ({"epochs": 1.5}, "epochs 1.5"),
        ({"sigmoid": 1}, "sigmoid 1 is not allowed; use True or False"),
        ({"exact_count": None}, "exact_count None is not allowed"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(message):
        BESA(**{"sparsity": 0.5, **options})
    BESA(sparsity=0.7, sigmoid=False)

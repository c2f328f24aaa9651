"""Which options of OWL are refused, and how."""

import pytest
from tests.refusals import refused_in_one_line

from prunebook.methods import OWL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either"),
        ({"sparsity": 0.5, "multiplier": -1}, "multiplier -1 is not allowed"),
        ({"sparsity": 0.5, "spread": "wide"}, "spread 'wide' is not allowed"),
        ({"sparsity": 0.5, "granularity": "row"}, "granularity 'row' is unknown"),
        ({"sparsity": 0.5, "exact_count": 1}, "exact_count 1 is not allowed"),
        ({"sparsity": 0.5, "base": "owls"}, "method 'owls' is unknown"),
        (
            {"sparsity": 0.5, "base": "sparsegpt", "precision": "exact", "pattern": "2:4"},
            "give either",
        ),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(message):
        OWL(**options)


def test_a_base_that_allocates_by_itself_is_refused():
    with refused_in_one_line("base 'owl' takes no allocation"):
        OWL(sparsity=0.5, base="owl")

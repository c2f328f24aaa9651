"""Which options of the LLM Surgeon are refused, and how."""

import pytest
from tests.refusals import refused_in_one_line

from prunebook.methods import LLMSurgeon
from prunebook.sparsity.patterns import Unstructured

STRUCTURED = {"structure": "rows+columns"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"structure": "rows"},
            "structure 'rows' is not allowed for llm-surgeon; use 'elements' or 'rows\\+columns'",
        ),
        ({"shots": 0}, "shots 0 is not allowed; use a whole number >= 1"),
        ({"max_correlate": 1.5}, "max_correlate 1.5 is not allowed; use a whole number >= 1"),
        ({"max_correlate": 0}, "max_correlate 0 is not allowed; use a whole number >= 1"),
        ({"damping": "1e-2"}, "damping '1e-2' is not allowed; use a fraction >= 0"),
        ({"damping": -1}, "damping -1 is not allowed"),
        ({"damping": None}, "damping None is not allowed"),
        ({"criterion": "obd"}, "criterion 'obd' is not allowed"),
        ({"scope": "row"}, "scope 'row' is not allowed"),
        ({"precision": "slow"}, "precision 'slow' is not allowed"),
        ({"sparsity": 1.0}, "sparsity 1.0"),
        ({"sparsity": None}, "give either sparsity or pattern"),
        (
            {"sparsity": None, "pattern": "2:4", **STRUCTURED},
            "pattern 2:4 is not allowed for rows\\+columns",
        ),
        (
            {"sparsity": None, "pattern": Unstructured(0.5, "layer")},
            "pattern 0.5 per layer is not allowed",
        ),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(message):
        LLMSurgeon(**{"sparsity": 0.5, **options})

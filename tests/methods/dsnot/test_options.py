"""Which options of DSnoT are refused, and how."""

import pytest
from tests.refusals import refused_in_one_line

from prunebook.methods import DSnoT
from prunebook.sparsity.patterns import Unstructured


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either"),
        (
            {"sparsity": 0.5, "criterion": "owl"},
            "criterion 'owl' is not allowed for dsnot; use 'magnitude' or 'ria' or",
        ),
        ({"sparsity": 0.5, "cycles": -1}, "cycles -1 is not allowed"),
        ({"sparsity": 0.5, "cycles": 2.5}, "cycles 2.5"),
        ({"sparsity": 0.5, "cycles": True}, "cycles True"),
        ({"sparsity": 0.5, "threshold": -1}, "threshold -1 is not"),
        (
            {"sparsity": 0.5, "variance_power": float("inf")},
            "variance_power inf is not allowed; use a number >= 0",
        ),
        ({"sparsity": 0.5, "variance_power": float("nan")}, "variance_power nan"),
        ({"sparsity": 0.5, "overshoot": 1}, "overshoot 1 is not"),
        (
            {"sparsity": 0.5, "as_released": "queues"},
            "as_released 'queues' is not allowed; use a tuple of 'variance', 'queues', 'skip-mlp'",
        ),
        ({"sparsity": 0.5, "as_released": ("mlp",)}, r"as_released \('mlp',\) is not allowed"),
        ({"sparsity": 0.5, "as_released": 3}, "as_released 3 is not allowed"),
        (
            {"pattern": "2:4", "as_released": ("queues",)},
            "as_released 'queues' is not allowed with pattern 2:4",
        ),
        ({"pattern": Unstructured(0.5, "model")}, "scope 'model' is not allowed for dsnot"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(message):
        DSnoT(**options)

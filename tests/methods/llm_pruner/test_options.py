"""Which options of LLM-Pruner are refused, and how."""

import pytest
from tests.refusals import refused_in_one_line

from prunebook.methods import LLMPruner


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of sparsity, ratio, not sparsity=None, ratio=None"),
        (
            {"sparsity": 0.2, "ratio": 0.2},
            "give one of sparsity, ratio, not sparsity=0.2, ratio=0.2",
        ),
        ({"sparsity": 0}, "sparsity 0 is not allowed"),
        ({"ratio": 0}, "ratio 0 is not allowed"),
        ({"ratio": 1.0}, "ratio 1.0 is not allowed; use a number in"),
        ({"sparsity": -1}, "sparsity -1 is not allowed"),
        ({"ratio": "a"}, "ratio 'a' is not allowed"),
        ({"sparsity": True}, "sparsity True is not allowed"),
        (
            {"sparsity": 0.2, "criterion": "taylor"},
            "criterion 'taylor' is not allowed for llm-pruner; use 'vector' or",
        ),
        ({"sparsity": 0.2, "aggregation": "mean"}, "aggregation 'mean' is not allowed"),
        ({"sparsity": 0.2, "structure": "row"}, "structure 'row' is not allowed"),
        ({"sparsity": 0.2, "precision": "half"}, "precision 'half' is not allowed"),
        (
            {"ratio": 0.2, "structure": "channel"},
            "structure 'channel' goes with sparsity and scores",
        ),
        (
            {"sparsity": 0.2, "structure": "channel", "criterion": "random"},
            "structure 'channel' goes with sparsity",
        ),
        ({"sparsity": 0.2, "keep_first": -1}, "keep_first -1 is not allowed"),
        ({"sparsity": 0.2, "keep_last": 1.0}, "keep_last 1.0 is not allowed"),
        ({"sparsity": 0.2, "seed": None}, "seed None is not allowed"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(message):
        LLMPruner(**options)

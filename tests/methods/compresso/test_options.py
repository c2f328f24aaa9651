"""Which options of Compresso are refused, and how."""

import pytest
from tests.refusals import refused_in_one_line

from prunebook.methods import Compresso


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0}, "sparsity 0 is not allowed"),
        ({"sparsity": "a"}, "sparsity 'a' is not allowed"),
        ({"rank": 0}, "rank 0 is not allowed"),
        ({"seed": -1}, "seed -1 is not allowed"),
        ({"batch_size": 1.5}, "batch_size 1.5 is not allowed"),
        ({"learning_rate": -1}, "learning_rate -1 is not allowed"),
        ({"mask_rate": None}, "mask_rate None is not allowed"),
        (
            {"lora_only": 0.6},
            "lora_only 0.6 is not allowed; use a share of the steps from 0 to 0.5",
        ),
        ({"lora_only": "a"}, "lora_only 'a' is not allowed; use a share of the steps"),
        ({"hidden": 1}, "hidden 1 is not allowed; use True"),
        ({"precision": "half"}, "precision 'half' is not allowed for compresso"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(message):
        Compresso(**options)

"""Options that methods which train have in common: their checks, and the training they ask for."""

from dataclasses import dataclass

import pytest
from tests.refusals import refused_in_one_line

from prunebook.recovery.training import Training
from prunebook.recovery.training_options import TrainingOptions


@dataclass(frozen=True)
class Trained(TrainingOptions):
    rank: int = 8
    learning_rate: float = 1e-3
    batch_size: int = 4
    seed: int = 2
    precision: str = "fast"


def test_they_are_fields_of_the_method_in_its_own_order():
    assert repr(Trained(3, 0.5)).startswith("Trained(rank=3, learning_rate=0.5, batch_size=4")


def test_the_training_is_what_the_options_say():
    training = Trained().training(steps=25, betas=(0.9, 0.95))
    assert training == Training(
        1e-3,
        2,
        weight_decay=0.0,
        betas=(0.9, 0.95),
        batch=4,
        seed=2,
        precision="fast",
        clip=1.0,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1}, "learning_rate -1 is not allowed"),
        ({"batch_size": 0}, "batch_size 0 is not allowed; use a whole number >= 1"),
        ({"seed": -1}, "seed -1 is not allowed; use a whole number >= 0"),
        ({"precision": "half"}, "precision 'half' is not allowed for trained; use 'exact' or"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with refused_in_one_line(message):
        Trained(**options).check_training("trained")

"""The options that methods share which train in one pass over their data.

Each such method is a dataclass with these options among its fields, under the same names and with
defaults of its own; what the options mean, their checks, and the training that they ask for are
here.
"""

from typing import Any

from ..passes.precision import PRECISIONS
from ..validation import check_choices, check_number, check_whole
from .training import Training


class TrainingOptions:
    """Options of a method that trains with AdamW, in one pass over its data.

    learning_rate: learning rate at its peak, after a tenth of the steps.
    batch_size: windows in a step.
    seed: seed of whatever the training draws.
    precision: `exact` (passes in the weights' dtype, in float32 at least where all weights are
        trained) or `fast` (products in bfloat16).
    """

    learning_rate: float
    batch_size: int
    seed: int
    precision: str

    def check_training(self, name: str) -> None:
        """Raise a `UserError` unless these options are possible.

        Args:
            name: name of the method, for the message.
        """
        check_choices(self, name, {"precision": PRECISIONS})
        check_number("learning_rate", self.learning_rate)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0)

    def training(self, steps: int, **settings: Any) -> Training:
        """How the method trains: no weight decay, and the norm of all gradients at most 1.

        Args:
            steps: number of all steps; a tenth of them is the warm-up.
            settings: further fields of `Training`, e.g. `betas`.
        """
        return Training(
            self.learning_rate,
            steps // 10,
            batch=self.batch_size,
            seed=self.seed,
            precision=self.precision,
            clip=1.0,
            weight_decay=0.0,
            **settings,
        )

"""Gradual magnitude pruning: train, and remove more and more of the smallest weights on the way.

The recipe of Frantar et al., Scaling Laws for Sparsely-Connected Foundation Models (ICLR 2024,
arXiv 2309.08520), after Zhu and Gupta (arXiv 1710.01878); official code google-research/jaxpruner,
projects/bigsparse, at f133ee5.

Differences from the official code:

- The optimiser is AdamW. There it is an Adafactor that leaves zeros out of two root mean squares
  over a tensor, which AdamW does not take.
- Moments of removed weights are kept.
- Masks are chosen a number of times on the ramp, and at its very end; there every 100 steps.
- The norm of all gradients, those of removed weights included, is clipped at 1.
- Masks are chosen from the weights after an update, so that removed ones may return; there they are
  chosen from the masked weights before it, so that none does.

From the same weights the masks agree but for one weight of rounding: the number removed is rounded
down here, the number kept there (`benchmarks/official/sparse_scaling_laws.py`).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from accelerate import PartialState
from torch import nn
from transformers import PreTrainedModel

from ...data.token_check import check_tokens
from ...errors import UserError
from ...measure.baseline import check_head
from ...models.loading import on_device
from ...passes.backward import next_token_loss
from ...recovery.training import train, training_all
from ...recovery.training_options import TrainingOptions
from ...sparsity.patterns import Pattern, make_pattern
from ...validation import check_flag, check_number, check_whole
from ..base import Method
from .gradual_masks import GradualMasks, Ramp


@dataclass(frozen=True)
class GradualMagnitude(TrainingOptions, Method):
    """All weights trained on next-token loss, while each matrix loses the same share of its own.

    Training is one pass over the data; the sparsity rises on a cubic ramp.

    Args:
        sparsity: fraction of each matrix that is zero in the end, in [0, 1).
        pattern: n:m in the end instead, e.g. '2:4'; what it keeps is never removed, and the other
            weights are removed on the same ramp.
        ramp_start: share of the steps after which the sparsity begins to grow.
        ramp_end: share of the steps at which it stops; 0 <= ramp_start <= ramp_end <= 1.
        mask_updates: how often masks are chosen on the ramp, at most once in a step.
        embeddings: prune embedding and head, too, by `1 - sqrt(1 - sparsity)` as the official code
            does, so that a parent wider by `1 / sqrt(1 - sparsity)` has as many non-zeros there;
            else they stay dense.
        learning_rate: learning rate at its peak, after a tenth of the steps.
        batch_size: windows in a step.
        seed: seed of dropout.
        precision: `exact` (passes in the weights' dtype, float32 at least) or `fast` (products in
            bfloat16).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    ramp_start: float = 0.25
    ramp_end: float = 0.75
    mask_updates: int = 50
    embeddings: bool = False
    learning_rate: float = 3e-3
    batch_size: int = 8
    seed: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "sparse-scaling-laws"
    needs_calibration: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the weights of each matrix"

    def __post_init__(self):
        make_pattern(self.sparsity, self.pattern)
        self.check_training("gradual-magnitude")
        for name in ("ramp_start", "ramp_end"):
            check_number(name, getattr(self, name))
        if not self.ramp_start <= self.ramp_end <= 1:
            raise UserError(
                f"ramp_start {self.ramp_start}, ramp_end {self.ramp_end} are not allowed; use 0 <= "
                "ramp_start <= ramp_end <= 1"
            )
        check_whole("mask_updates", self.mask_updates, 1)
        check_flag("embeddings", self.embeddings)

    @property
    def target(self) -> Pattern:
        """The pattern that every matrix of the blocks has in the end."""
        return make_pattern(self.sparsity, self.pattern, "layer")

    @property
    def ramp(self) -> Ramp:
        """How the sparsity grows from 0 to that of `target`."""
        return Ramp(self.ramp_start, self.ramp_end, self.mask_updates)

    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> list[float]:
        """Train and prune, in place.

        Args:
            model: as for `Method.prune`, like `progress`; the whole model computes on `device`.
            text: the data, int64 `[n, length]`, in the order of training; windows that do not fill
                a last step are left out.
            device: as for `Method.prune`.

        Returns:
            The loss of each step, in nats a token.

        Raises:
            UserError: bad tokens, and what `recovery.training.train` raises.
        """
        # Everything is checked before anything is trained.
        check_head(model)
        check_tokens(model, text, "data")
        steps = len(text) // (self.batch_size * PartialState().num_processes)
        training = self.training(steps, betas=(0.9, 0.95))

        def loss_of(trained: nn.Module, batch: torch.Tensor) -> torch.Tensor:
            # The masks go on the weights as the last update has left them. Gradients are dense, so
            # that a removed weight may grow and return at the next choice.
            masks.apply()
            return next_token_loss(trained, batch)

        with on_device(model, device), training_all(model, training):
            masks = GradualMasks(model, self.target, self.ramp, steps, self.embeddings)
            losses = train(model, text, training, loss_of, progress, settings=repr(self))
            # The last update is followed by no pass, so that the masks go on once more.
            masks.apply()
        return losses

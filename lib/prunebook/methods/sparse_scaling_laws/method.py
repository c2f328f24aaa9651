"""Gradual magnitude pruning: train, and meanwhile take away more and more of the smallest weights.

The recipe of Frantar et al., Scaling Laws for Sparsely-Connected Foundation Models (ICLR 2024,
arXiv 2309.08520), after Zhu and Gupta (arXiv 1710.01878); official code google-research/jaxpruner,
projects/bigsparse, at f133ee5.

Differences from the official code: AdamW in place of an Adafactor that leaves zeros out of its root
mean squares over a tensor, which AdamW has not; moments of removed weights are kept. Masks are
chosen a number of times on the ramp, the last at its very end, not every 100 steps. The norm of all
gradients, of removed weights too, is clipped at 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from accelerate import PartialState

from ...criteria.magnitude import magnitude_score
from ...data.windows import check_tokens
from ...errors import UserError
from ...kernels.masking import apply_mask
from ...measure.baseline import check_head
from ...models.anatomy import find_blocks, weight_of
from ...models.loading import on_device
from ...passes.backward import next_token_loss
from ...passes.precision import PRECISIONS
from ...recovery.training import Training, train, training_all
from ...sparsity.patterns import NofM, Pattern, Unstructured, keep_mask, make_pattern
from ...validation import check_choices, check_flag, check_number, check_whole
from ..base import Method


@dataclass(frozen=True)
class GradualMagnitude(Method):
    """Train all weights on next-token loss, every matrix losing the same share of its weights on a
    cubic ramp.

    Args:
        sparsity: fraction of each matrix that is zero in the end, in [0, 1).
        pattern: n:m in the end instead, as '2:4': its survivors stay, the others go on the same
            ramp.
        start, end: shares of the steps between which sparsity grows, 0 <= start <= end <= 1.
        updates: how often masks are chosen on the ramp, at most once a step.
        embeddings: prune embedding and head too, by `1 - sqrt(1 - sparsity)` as the official code
            does, so that a parent wider by `1 / sqrt(1 - sparsity)` has as many non-zeros there;
            else they stay dense.
        learning_rate: at its peak, after a tenth of the steps.
        batch: windows a step.
        seed: of dropout.
        precision: of the passes, `exact` (the weights' dtype, float32 at least) or `fast` (bfloat16
            products).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    pattern: str | Pattern | None = None
    start: float = 0.25
    end: float = 0.75
    updates: int = 50
    embeddings: bool = False
    learning_rate: float = 3e-3
    batch: int = 8
    seed: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "sparse-scaling-laws"
    needs_calibration: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the weights of each matrix"

    def __post_init__(self):
        make_pattern(self.sparsity, self.pattern)
        check_choices(self, "gradual-magnitude", {"precision": PRECISIONS})
        for name in ("start", "end", "learning_rate"):
            check_number(name, getattr(self, name))
        if not self.start <= self.end <= 1:
            raise UserError(
                f"start {self.start}, end {self.end} are not allowed; use 0 <= start <= end <= 1"
            )
        for name in ("updates", "batch"):
            check_whole(name, getattr(self, name), 1)
        check_flag("embeddings", self.embeddings)

    @property
    def target(self) -> Pattern:
        return make_pattern(self.sparsity, self.pattern, "layer")

    def ramp(self, step: int, steps: int) -> float:
        """`1 - (1 - tau)^3`, the share of its final sparsity that a matrix has after `step` of
        `steps` updates."""
        return 1 - (1 - self._progress(step, steps)) ** 3

    def _progress(self, step: int, steps: int) -> float:
        """tau: 0 before the ramp, 1 from its end on."""
        first = round(self.start * steps)
        last = round(self.end * steps)
        return (
            float(step >= last)
            if step >= last or step <= first
            else (step - first) / (last - first)
        )

    def chooses_at(self, step: int, steps: int) -> bool:
        """Whether masks are chosen then."""
        return int(self.updates * self._progress(step, steps)) > int(
            self.updates * self._progress(step - 1, steps)
        )

    def removed(
        self, weight: torch.Tensor, ramp: float = 1.0, target: Pattern | None = None
    ) -> torch.Tensor:
        """Bool `[out, in]`, True for the weights that are zero at this point of the ramp: the
        smallest, but none that n:m keeps in the end. `target` is the final pattern where it is not
        the method's."""
        target = target or self.target
        score = magnitude_score(weight).dense()
        if isinstance(target, NofM):
            score = score.masked_fill(keep_mask(score, target), torch.inf)
        return ~keep_mask(score, Unstructured(target.sparsity * ramp, "layer"))

    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Train and prune in place.

        Args:
            calibration: int64 `[n, length]`, the text to train on, once and in this order, as far
                as it fills steps.
            progress: label of a progress bar.
            device: where the whole model computes.

        Raises:
            UserError: bad tokens, and what `finetune.train` raises.
        """
        check_head(model)
        check_tokens(model, calibration)
        steps = len(calibration) // (self.batch * PartialState().num_processes)
        training = Training(
            self.learning_rate,
            steps // 10,
            batch=self.batch,
            seed=self.seed,
            precision=self.precision,
            clip=1.0,
            weight_decay=0.0,
            betas=(0.9, 0.95),
        )

        def loss_of(trained, batch):
            masks.apply()  # to the weights as the last step has left them
            return next_token_loss(trained, batch)

        with on_device(model, device), training_all(model, training):
            masks = _Masks(self, model, steps)
            losses = train(model, calibration, training, loss_of, progress, settings=repr(self))
            masks.apply()
        return losses


class _Masks:
    """The masks of a run: `apply` before the first update of the weights and after each."""

    def __init__(self, method: GradualMagnitude, model, steps: int):
        self._method = method
        self._steps = steps
        self._step = 0
        self._removed = {}
        targets = {x: method.target for block in find_blocks(model) for x in block.linears.values()}
        if method.embeddings:
            milder = Unstructured(1 - (1 - method.target.sparsity) ** 0.5, "layer")
            targets |= dict.fromkeys(
                (model.get_input_embeddings(), model.get_output_embeddings()), milder
            )
        # tied ones once
        self._matrices = {module.weight: (module, target) for module, target in targets.items()}

    @torch.no_grad()
    def apply(self) -> None:
        method = self._method
        now = (self._step, self._steps)
        for parameter, (module, target) in self._matrices.items():
            weight = weight_of(module)
            if method.chooses_at(*now):
                self._removed[parameter] = method.removed(weight, method.ramp(*now), target)
            if parameter in self._removed:
                apply_mask(weight, ~self._removed[parameter])
        self._step += 1

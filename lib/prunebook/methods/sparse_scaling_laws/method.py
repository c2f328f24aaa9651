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
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from accelerate import PartialState
from torch import nn
from transformers import PreTrainedModel

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
        check_choices(self, "gradual-magnitude", {"precision": PRECISIONS})
        for name in ("ramp_start", "ramp_end", "learning_rate"):
            check_number(name, getattr(self, name))
        if not self.ramp_start <= self.ramp_end <= 1:
            raise UserError(
                f"ramp_start {self.ramp_start}, ramp_end {self.ramp_end} are not allowed; use 0 <= "
                "ramp_start <= ramp_end <= 1"
            )
        for name in ("mask_updates", "batch_size"):
            check_whole(name, getattr(self, name), 1)
        check_flag("embeddings", self.embeddings)

    @property
    def target(self) -> Pattern:
        """The pattern that every matrix of the blocks has in the end."""
        return make_pattern(self.sparsity, self.pattern, "layer")

    def ramp(self, step: int, steps: int) -> float:
        """The share of its final sparsity that a matrix has, `1 - (1 - tau)^3`.

        Args:
            step: number of updates of the weights so far.
            steps: number of all updates.
        """
        return 1 - (1 - self._progress(step, steps)) ** 3

    def _progress(self, step: int, steps: int) -> float:
        """tau: 0 before the ramp, 1 from its end on."""
        first = round(self.ramp_start * steps)
        last = round(self.ramp_end * steps)
        if step >= last:
            return 1.0
        if step <= first:
            return 0.0
        return (step - first) / (last - first)

    def chooses_at(self, step: int, steps: int) -> bool:
        """Whether masks are chosen after so many updates of the weights.

        Args:
            step: number of updates of the weights so far.
            steps: number of all updates.
        """
        # The ramp is cut into equal parts; masks are chosen at the end of each.
        before = int(self.mask_updates * self._progress(step - 1, steps))
        now = int(self.mask_updates * self._progress(step, steps))
        return now > before

    def removed(
        self, weight: torch.Tensor, ramp: float = 1.0, target: Pattern | None = None
    ) -> torch.Tensor:
        """Which weights are zero at a point of the ramp: the smallest, but none that n:m keeps.

        Args:
            weight: `[out, in]`.
            ramp: share of the final sparsity.
            target: the final pattern; None for that of the method.

        Returns:
            bool `[out, in]`, True for zeros.
        """
        target = target or self.target
        score = magnitude_score(weight).dense()
        # What n:m keeps in the end is kept all the way.
        if isinstance(target, NofM):
            score = score.masked_fill(keep_mask(score, target), torch.inf)
        # s(t) = S (1 - (1 - tau)^3): the smallest of the matrix go, exactly as many as s says.
        return ~keep_mask(score, Unstructured(target.sparsity * ramp, "layer"))

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
        training = Training(
            self.learning_rate,
            steps // 10,
            batch=self.batch_size,
            seed=self.seed,
            precision=self.precision,
            clip=1.0,
            weight_decay=0.0,
            betas=(0.9, 0.95),
        )

        def loss_of(trained: nn.Module, batch: torch.Tensor) -> torch.Tensor:
            # The masks go on the weights as the last update has left them. Gradients are dense, so
            # that a removed weight may grow and return at the next choice.
            masks.apply()
            return next_token_loss(trained, batch)

        with on_device(model, device), training_all(model, training):
            masks = _Masks(self, model, steps)
            losses = train(model, text, training, loss_of, progress, settings=repr(self))
            # The last update is followed by no pass, so that the masks go on once more.
            masks.apply()
        return losses


class _Masks:
    """The masks of a run.

    Args:
        method: says when masks are chosen, and how many weights they remove.
        model: the model that is trained.
        steps: number of all updates of the weights.
    """

    def __init__(self, method: GradualMagnitude, model: PreTrainedModel, steps: int):
        self._method = method
        self._steps = steps
        self._step = 0
        self._removed = {}
        targets = {}
        for block in find_blocks(model):
            targets |= dict.fromkeys(block.linears.values(), method.target)
        if method.embeddings:
            # S_emb = 1 - sqrt(1 - S)
            milder = Unstructured(1 - (1 - method.target.sparsity) ** 0.5, "layer")
            targets[model.get_input_embeddings()] = milder
            targets[model.get_output_embeddings()] = milder
        # By weight, so that a tied one is there once.
        self._matrices = {module.weight: (module, target) for module, target in targets.items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Choose masks if it is time to, and set what they remove to zero.

        It is called before the first update of the weights and after each.
        """
        ramp = self._method.ramp(self._step, self._steps)
        chooses = self._method.chooses_at(self._step, self._steps)
        for parameter, (module, target) in self._matrices.items():
            weight = weight_of(module)
            if chooses:
                self._removed[parameter] = self._method.removed(weight, ramp, target)
            if parameter in self._removed:
                apply_mask(weight, ~self._removed[parameter])
        self._step += 1

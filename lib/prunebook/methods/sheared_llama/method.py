"""Sheared LLaMA: learn which layers, heads, neurons and hidden channels make up a model of a given
shape.

Xia et al., Sheared LLaMA: Accelerating Language Model Pre-training via Structured Pruning (ICLR
2024, arXiv 2310.06694), section 2.1; official code princeton-nlp/LLM-Shearing at b87218b. What
follows it, continued training on domains whose shares adapt, is `domains.train_mixture`.

Differences from the paper: heads go by whole key-value heads; its source model has no grouped
queries. The constraint is on fractions, averaged over layers, and beta is 2/3, both as in the code.
Masks that stay are 1 after the cut instead of being folded in at up to 0.996, so that tied
embeddings stay tied. The mixture of text does not change while masks are learned. Learning rates
end at 0, not at a tenth.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...data.windows import check_tokens
from ...errors import UserError
from ...measure.baseline import check_head
from ...models.loading import on_device
from ...models.sizes import AXES
from ...passes.backward import restore_requires_grad
from ...passes.precision import PRECISIONS
from ...recovery.learned_masks import MaskSearchResult, learn_masks
from ...recovery.training import Training, training_all
from ...sparsity.structured_masks import check_shape, cut
from ...validation import check_choices, check_flag, check_number, check_share, check_whole
from ..base import Method


@dataclass(frozen=True)
class ShearedLLaMA(Method):
    """Masks and weights trained together until the expected sizes are those asked for; then exactly
    these are cut out.

    Args:
        blocks, heads, neurons, hidden: how many of each stay in the end, all blocks alike (query
            heads: those of whole key-value heads); None leaves an axis as it is.
        steps: of the optimiser; None for one pass over the calibration windows, else they are
            repeated as needed.
        learning_rate: of the weights.
        mask_rate: of log alpha;
        multiplier_rate: of lambda and phi. The paper's are for
            3,200 steps.
        ramp: share of the steps in which targets grow from nothing.
        train_weights: False trains masks alone.
        batch: windows a step.
        seed: of the masks' start and noise.
        precision: of the passes, `exact` (the weights' dtype, float32 at least where they are
            trained) or `fast`.

    Raises:
        UserError: an impossible option.
    """

    blocks: int | None = None
    heads: int | None = None
    neurons: int | None = None
    hidden: int | None = None
    steps: int | None = None
    learning_rate: float = 1e-4
    mask_rate: float = 1.0
    multiplier_rate: float = 1.0
    ramp: float = 0.2
    train_weights: bool = True
    batch: int = 1
    seed: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "sheared-llama"
    needs_calibration: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = None

    def __post_init__(self):
        check_choices(self, "sheared-llama", {"precision": PRECISIONS})
        if not self._given:
            raise UserError("give sizes that stay, as blocks=24 or neurons=1024")
        for name in (*self._given, *(["steps"] if self.steps is not None else []), "batch"):
            check_whole(name, getattr(self, name), 1)
        for name in ("learning_rate", "mask_rate", "multiplier_rate"):
            check_number(name, getattr(self, name))
        check_share("ramp", self.ramp, "a share of the steps from 0 to 1, as 0.2")
        check_flag("train_weights", self.train_weights)

    @property
    def _given(self) -> dict[str, int]:
        """What shall stay, by axis."""
        return {axis: getattr(self, axis) for axis in AXES if getattr(self, axis) is not None}

    def describe(self) -> str:
        """What the report calls the pattern."""
        return ", ".join(f"{size} {axis}" for axis, size in self._given.items())

    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Learn and cut, in place.

        Args:
            calibration: int64 `[n, length]`, the text to learn from.
            progress: label of a progress bar, None for none.
            device: where the whole model computes; None for where it is.

        Raises:
            UserError: as `learn`.
        """
        with on_device(model, device):
            learned = self.learn(model, calibration, progress)
            cut(model, learned.masks)
        return learned

    def learn(self, model, tokens: torch.Tensor, progress: str | None = None) -> MaskSearchResult:
        """Train masks, and weights in place; nothing is cut yet.

        Raises:
            UserError: sizes that the model does not have or cannot be expressed, an architecture
                without the axes, bad tokens, and what `finetune.train` raises.
        """
        check_head(model)
        check_tokens(model, tokens)
        full = check_shape(model, self._given)
        steps = self.steps or len(tokens) // self.batch
        windows = tokens[torch.arange(steps * self.batch) % len(tokens)]
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
        with training_all(model, training) if self.train_weights else restore_requires_grad(model):
            model.requires_grad_(self.train_weights)
            return learn_masks(
                model,
                windows,
                self._given,
                full,
                training,
                ramp=round(self.ramp * steps),
                mask_rate=self.mask_rate,
                multiplier_rate=self.multiplier_rate,
                progress=progress,
            )

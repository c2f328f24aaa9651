"""Sheared LLaMA: learn which blocks, heads, neurons and channels make up a model of a given shape.

Xia et al., Sheared LLaMA: Accelerating Language Model Pre-training via Structured Pruning (ICLR
2024, arXiv 2310.06694), section 2.1; official code princeton-nlp/LLM-Shearing at b87218b. What
follows it, training on domains whose shares adapt (section 2.2), is `data_mixture.train_mixture`.

Differences from the paper:

- Heads are removed by whole key-value heads; the paper's source model has no grouped queries.
- The constraint is on fractions, averaged over layers, as in the official code.
- beta is 2/3, as in the official code; the paper prints 0.83.
- Masks of what stays are 1 after the cut, so that tied embeddings stay tied; there they are folded
  in at up to 0.996.
- The mixture of text does not change while masks are learned.
- Learning rates end at 0, not at a tenth of their peak.

With the same random numbers masks, loss and gradients of a training step agree with the official
code to 3e-6, and so do the logits of the cut model (`benchmarks/official/sheared_llama.py`).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...data.token_check import check_tokens
from ...errors import UserError
from ...measure.baseline import check_head
from ...models.sizes import AXES
from ...passes.backward import restore_requires_grad
from ...recovery.learned_masks import MaskSearchResult, learn_masks
from ...recovery.training import Training, training_all
from ...recovery.training_options import TrainingOptions
from ...sparsity.structured_masks import check_shape
from ...validation import check_number, check_whole
from ..base import MaskTrainingMethod

RAMP = 0.2  # share of the steps in which the targets grow from nothing: 640 of the paper's 3,200


@dataclass(frozen=True)
class ShearedLLaMA(TrainingOptions, MaskTrainingMethod):
    """Masks and weights trained together until the expected sizes are those asked for, then cut.

    Training is one pass over the data. The rates of the paper are for 3,200 steps; a few hundred
    need a lower one of the masks, e.g. 0.2.

    Args:
        keep_blocks: blocks that stay; None for all, like the next three.
        keep_heads: query heads of each block that stay, those of whole key-value heads.
        keep_neurons: MLP neurons of each block that stay.
        keep_hidden: hidden channels that stay.
        learning_rate: learning rate of the weights; 0 freezes them and trains the masks alone.
        mask_rate: learning rate of log alpha.
        multiplier_rate: learning rate of the multipliers lambda and phi.
        batch_size: windows in a step.
        seed: seed of the masks' start and of their noise.
        precision: `exact` (passes in the weights' dtype, in float32 at least where weights are
            trained) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    keep_blocks: int | None = None
    keep_heads: int | None = None
    keep_neurons: int | None = None
    keep_hidden: int | None = None
    learning_rate: float = 1e-4
    mask_rate: float = 1.0
    multiplier_rate: float = 1.0
    batch_size: int = 1
    seed: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "sheared-llama"
    sparsity_of: ClassVar[str | None] = None

    def __post_init__(self):
        self.check_training("sheared-llama")
        if not self._asked_sizes:
            raise UserError("give sizes that stay, e.g. keep_blocks=24 or keep_neurons=1024")
        for axis, size in self._asked_sizes.items():
            check_whole(f"keep_{axis}", size, 1)
        for name in ("mask_rate", "multiplier_rate"):
            check_number(name, getattr(self, name))

    @property
    def _asked_sizes(self) -> dict[str, int]:
        """Axis -> what the options say that stays of it."""
        sizes = {axis: getattr(self, f"keep_{axis}") for axis in AXES}
        return {axis: size for axis, size in sizes.items() if size is not None}

    def describe(self) -> str:
        """What a report calls the pattern."""
        return ", ".join(f"{size} {axis}" for axis, size in self._asked_sizes.items())

    def learn(
        self, model: PreTrainedModel, data: torch.Tensor, progress: str | None = None
    ) -> MaskSearchResult:
        """Train masks, and weights in place; nothing is cut yet.

        Args:
            model: a causal language model.
            data: int64 `[n, length]`.
            progress: label of a progress bar; None for no bar.

        Returns:
            The masks; there is a constraint of their course for each axis.

        Raises:
            UserError: sizes that the model does not have or cannot have, an architecture without
                the axes, bad tokens, and what `recovery.training.train` raises.
        """
        # Everything is checked before anything is trained.
        check_head(model)
        check_tokens(model, data, "data")
        full = check_shape(model, self._asked_sizes)
        steps = len(data) // self.batch_size
        # One optimiser, AdamW: the paper's betas, no weight decay, gradients of theta clipped at 1.
        training = self.training(steps, betas=(0.9, 0.95))
        # min over theta and log alpha, max over lambda and phi of the loss plus, for each kind g of
        # structure, lambda_g (s - t) + phi_g (s - t)^2. At the end the lowest log alpha go, exactly
        # as many as the shape says: in every block for heads and neurons.
        with self._trainable(model, training):
            return learn_masks(
                model,
                data,
                self._asked_sizes,
                full,
                training,
                ramp=round(RAMP * steps),
                mask_rate=self.mask_rate,
                multiplier_rate=self.multiplier_rate,
                progress=progress,
            )

    @contextlib.contextmanager
    def _trainable(self, model: PreTrainedModel, training: Training) -> Iterator[None]:
        """While open, the weights theta are trained, or frozen for a learning rate of 0."""
        if self.learning_rate:
            with training_all(model, training):
                yield
            return
        with restore_requires_grad(model):
            model.requires_grad_(False)
            yield

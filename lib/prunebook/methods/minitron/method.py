"""Minitron: rank heads, neurons, hidden channels and blocks by activations, and trim each axis.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (NeurIPS 2024,
arXiv 2407.14679); NVIDIA's implementation is mcore_minitron.py of Model-Optimizer. The training
by a teacher is a step of its own, `recovery.distillation.distill`; the shapes to choose from are
`models.sizes.candidates`.

Difference from the paper: dropped heads are not merged into others. The paper's rule for it leaves
open which matrices it means and prints an index that does not exist, and NVIDIA's code has none.

Beside NVIDIA/Model-Optimizer at a2fbac7, on random Llamas, scores of neurons, hidden channels,
blocks and, with `head_norm="channel"`, heads differ by at most 1e-7 of the largest, and the same
units stay; the paper's `head_norm="token"` moves scores of heads by up to 12 %.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...criteria.block_scores import perplexity_scores
from ...errors import UserError
from ...models.anatomy import find_stack, sublayers
from ...models.loading import on_device
from ...models.sizes import AXES, check_sizes, units_of_sparsity
from ...passes.precision import PRECISIONS
from ...validation import check_choices, check_fraction, check_whole
from ..base import Method
from .activations import activation_importance
from .aggregation import SAMPLE_AGGREGATIONS, TOKEN_AGGREGATIONS
from .trim import trim

_CHOICES = {
    "sample_aggregation": SAMPLE_AGGREGATIONS,
    "token_aggregation": tuple(TOKEN_AGGREGATIONS),
    "head_norm": ("token", "channel"),
    "depth_criterion": ("influence", "perplexity"),
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class Minitron(Method):
    """The best of each axis kept, in all blocks alike, so that the result is an ordinary model.

    Kept weights do not change.

    Args:
        keep_neurons: MLP neurons of each block that stay; None for all, like the next three.
        keep_heads: query heads of each block that stay, the same number for each key-value head.
        keep_hidden: hidden channels that stay.
        keep_blocks: blocks that stay.
        sparsity: fraction of the block parameters that goes instead, from the neurons alone.
        sample_aggregation: aggregation of activations over samples, `l2`, `mean` or `var`.
        token_aggregation: aggregation over the tokens of a sample, one of the same.
        head_norm: see `activations.activation_importance`.
        depth_criterion: blocks go by their `influence` (1 - cosine) or the `perplexity` without.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    keep_neurons: int | None = None
    keep_heads: int | None = None
    keep_hidden: int | None = None
    keep_blocks: int | None = None
    sparsity: float | None = None
    sample_aggregation: str = "l2"
    token_aggregation: str = "mean"
    head_norm: str = "token"
    depth_criterion: str = "influence"
    precision: str = "exact"

    paper: ClassVar[str | None] = "minitron"
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the parameters of all blocks"

    def __post_init__(self):
        check_choices(self, "minitron", _CHOICES)
        if bool(self._asked_sizes) == (self.sparsity is not None):
            raise UserError(
                "give sizes that stay, e.g. keep_neurons=1024 or keep_blocks=22, or else sparsity, "
                "e.g. 0.2"
            )
        for axis, size in self._asked_sizes.items():
            check_whole(f"keep_{axis}", size, 1)
        if self.sparsity is not None:
            check_fraction("sparsity", self.sparsity)

    @property
    def _asked_sizes(self) -> dict[str, int]:
        """Axis -> what the options say that stays of it."""
        sizes = {axis: getattr(self, f"keep_{axis}") for axis in AXES}
        return {axis: size for axis, size in sizes.items() if size is not None}

    def describe(self) -> str:
        """What a report calls the pattern."""
        sizes = [f"{size} {axis}" for axis, size in self._asked_sizes.items()]
        return ", ".join(sizes) or f"neurons, {self.sparsity}"

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Trim the model in place.

        Args:
            model: as for `Method.prune`, like `text`, `progress` and `device`; the whole model
                computes at once for the `perplexity` without blocks.

        Raises:
            UserError: sizes that the model does not have or cannot divide, an architecture without
                the axes, bad tokens, activations that are not finite.
        """
        # What stays of each axis, checked before anything is measured.
        sizes = self._sizes(model)
        # All axes are scored once, on the whole model: the paper found no gain in rounds.
        importance = activation_importance(
            model,
            text,
            sample_aggregation=self.sample_aggregation,
            token_aggregation=self.token_aggregation,
            head_norm=self.head_norm,
            precision=self.precision,
            progress=progress,
            device=device,
        )
        # Blocks go by their influence, or by the perplexity of the model without each.
        block_scores = importance.influence
        if "blocks" in sizes and self.depth_criterion == "perplexity":
            with on_device(model, device):
                block_scores = perplexity_scores(model, text, self.precision, progress)
        trim(model, sizes, importance, block_scores)

    def _sizes(self, model: PreTrainedModel) -> dict[str, int]:
        """Axis -> what stays of it, for every axis that is trimmed."""
        if self.sparsity is not None:
            stack = find_stack(model)[1]
            _, removed_neurons = units_of_sparsity(model, stack, self.sparsity, heads=False)
            return {"neurons": sublayers(stack[0]).neurons - removed_neurons}
        check_sizes(model, self._asked_sizes)
        return self._asked_sizes

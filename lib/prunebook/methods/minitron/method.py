"""Minitron: rank heads, neurons, hidden channels and blocks by activations, and trim each axis in
one go.

Muralidharan et al., Compact Language Models via Pruning and Knowledge Distillation (NeurIPS 2024,
arXiv 2407.14679); NVIDIA's implementation is mcore_minitron.py of Model-Optimizer. The teacher's
part is a step of its own, `distillation.distill`; the shapes to choose from are
`structures.candidates`.

Difference from the paper: what dropped heads had is not merged into others. The paper's rule for it
leaves open which matrices it means and prints an index that does not exist, and NVIDIA's code has
none.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...criteria.block_scores import perplexity_scores
from ...errors import UserError
from ...models.anatomy import all_sublayers, find_stack, sublayers
from ...models.loading import on_device
from ...models.sizes import AXES, check_sizes, top_k, units_of_sparsity
from ...models.surgery import keep_channels, keep_heads, keep_neurons, remove_blocks, sync_config
from ...passes.precision import PRECISIONS
from ...validation import check_choices, check_fraction, check_whole
from .activations import BATCH, SEQUENCE, activation_importance

_CHOICES = {
    "batch": BATCH,
    "sequence": tuple(SEQUENCE),
    "head_norm": ("token", "channel"),
    "depth": ("influence", "perplexity"),
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class Minitron:
    """The best of each axis kept, all blocks alike, so that the result is an ordinary model; no
    kept weight changes.

    Args:
        neurons, heads, hidden, blocks: how many of each stay (query heads: the same number for each
            key-value head); None leaves an axis as it is.
        sparsity: instead, the fraction of the block parameters that goes, from the neurons alone.
        batch, sequence: aggregations of activations over samples and over tokens, `l2`, `mean` or
            `var`.
        head_norm: see `criteria.activations.activation_importance`.
        depth: blocks go by their `influence` (1 - cosine) or the `perplexity` without them.
        precision: of the forward passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    neurons: int | None = None
    heads: int | None = None
    hidden: int | None = None
    blocks: int | None = None
    sparsity: float | None = None
    batch: str = "l2"
    sequence: str = "mean"
    head_norm: str = "token"
    depth: str = "influence"
    precision: str = "exact"

    paper: ClassVar[str] = "minitron"
    needs_calibration: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Structured", "Structured-Depth"],
        "criteria": ["Activation", "Perplexity", "Other"],
        "budget": ["Parameter"],
        "retrain": ["Extensive"],
    }

    def __post_init__(self):
        check_choices(self, "minitron", _CHOICES)
        given = [axis for axis in AXES if getattr(self, axis) is not None]
        if bool(given) == (self.sparsity is not None):
            raise UserError(
                "give sizes that stay, as neurons=1024 or blocks=22, or else sparsity, as 0.2"
            )
        for axis in given:
            check_whole(axis, getattr(self, axis), 1)
        if self.sparsity is not None:
            check_fraction("sparsity", self.sparsity)

    @property
    def description(self) -> str:
        """What the report calls the pattern."""
        sizes = [
            f"{getattr(self, axis)} {axis}" for axis in AXES if getattr(self, axis) is not None
        ]
        return ", ".join(sizes) or f"neurons, {self.sparsity}"

    @torch.no_grad()
    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Trim the model in place.

        Args:
            calibration: int64 `[n, length]`.
            progress: label of a progress bar, None for none.
            device: where blocks compute, one at a time, or for `perplexity` the whole model; None
                for where it is.

        Raises:
            UserError: sizes that the model does not have or cannot divide, an architecture without
                the axes, bad tokens, activations that are not finite.
        """
        sizes = self._sizes(model)
        found = activation_importance(
            model,
            calibration,
            batch=self.batch,
            sequence=self.sequence,
            head_norm=self.head_norm,
            precision=self.precision,
            progress=progress,
            device=device,
        )
        of_blocks = found.influence
        if "blocks" in sizes and self.depth == "perplexity":
            with on_device(model, device):
                of_blocks = perplexity_scores(model, calibration, self.precision, progress)
        for parts, of_heads, of_neurons in zip(
            all_sublayers(model), found.heads, found.neurons, strict=True
        ):
            if "heads" in sizes:
                by_group = of_heads.view(parts.kv_heads, -1)
                left = sizes["heads"] // parts.kv_heads
                best = [top_k(scores, left) for scores in by_group]
                keep_heads(
                    parts,
                    [
                        g * by_group.shape[1] + head
                        for g, group in enumerate(best)
                        for head in group
                    ],
                )
            if "neurons" in sizes:
                keep_neurons(parts, top_k(of_neurons, sizes["neurons"]))
        if "blocks" in sizes:
            remove_blocks(
                model, set(range(len(of_blocks))) - set(top_k(of_blocks, sizes["blocks"]))
            )
        sync_config(model)
        if "hidden" in sizes:
            keep_channels(model, top_k(found.hidden, sizes["hidden"]))

    def _sizes(self, model) -> dict[str, int]:
        """What stays of every axis that is trimmed."""
        if self.sparsity is not None:
            stack = find_stack(model)[1]
            gone = units_of_sparsity(model, stack, self.sparsity, heads=False)[1]
            return {"neurons": sublayers(stack[0]).neurons - gone}
        sizes = {axis: getattr(self, axis) for axis in AXES if getattr(self, axis) is not None}
        check_sizes(model, sizes)
        return sizes

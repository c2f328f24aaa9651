"""LLM-Pruner: remove the coupled groups with the lowest |gradient x weight|.

Ma et al., LLM-Pruner: On the Structural Pruning of Large Language Models (NeurIPS 2023, arXiv
2305.11627); official code horseee/LLM-Pruner at 128a07d. Repair is a step of its own,
`recovery.finetune.lora`.

Differences from the official code:

- The groups of a transformer block are written down in `group_scores`; the official code discovers
  them by tracing a graph.
- The score of key-value head h adds up the query heads that read it; the official code adds up
  heads h, h + K, h + 2K, ... for K key-value heads, see `group_scores.unit_scores`.
- Units compete inside their block only; the official code also offers a global ranking.
- One set of gradients decides on the whole cut; the official code also offers iterative steps, with
  new gradients for each.
- With `ratio`, 1e-9 is added to the rows that stay before they are rounded down, so that 0.9 takes
  9 of 10 neurons; the official code rounds the binary product down and takes 10.
- With `sparsity`, the parameters that whole heads cannot give up are taken from the neurons.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ...errors import UserError
from ...models.anatomy import Sublayers, find_stack, sublayers
from ...models.channels import keep_channels
from ...models.loading import on_device
from ...models.sizes import count_channels, top_k, units_of_ratio, units_of_sparsity
from ...models.surgery import keep_kv_heads, keep_neurons, sync_config
from ...passes.precision import PRECISIONS
from ...validation import check_choices, check_fraction, check_one_of, check_whole
from ..base import Method
from .group_scores import AGGREGATIONS, channel_scores, unit_scores
from .taylor import CRITERIA, saliences

_CHOICES = {
    "criterion": (*CRITERIA, "random"),
    "aggregation": AGGREGATIONS,
    "structure": ("block", "channel"),
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class LLMPruner(Method):
    """Heads and neurons removed from the inner blocks, or hidden channels from the whole model.

    A key-value head goes with the query heads that read it. Kept weights do not change.

    Args:
        sparsity: fraction of all block parameters that goes, met to the nearest neuron; with
            structure `channel`, fraction of the hidden channels that goes, met to the nearest
            multiple of the number of attention heads.
        ratio: fraction of the units of every block that is not spared, instead; heads and neurons
            are each rounded as in the official code, up to the 1e-9 that the module names.
        criterion: `element1` (the paper's choice), `vector`, `element2`, `mix`; rivals `l2` and
            `random`.
        aggregation: over the scores of a group's matrices, `sum`, `prod`, `max` or `last`.
        structure: `block` for heads and neurons, `channel` for hidden channels (with `sparsity`
            only).
        keep_first: blocks at the bottom that are spared.
        keep_last: blocks at the top that are spared; with keep_first = keep_last = 0 every block
            is cut. Structure `channel` spares none.
        seed: seed of the `random` scores.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    sparsity: float | None = None
    ratio: float | None = None
    criterion: str = "element1"
    aggregation: str = "sum"
    structure: str = "block"
    keep_first: int = 4
    keep_last: int = 2
    seed: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "llm-pruner"
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = (
        "the parameters of all blocks, or the hidden channels (structure 'channel')"
    )

    def __post_init__(self):
        check_choices(self, "llm-pruner", _CHOICES)
        check_one_of(self, "sparsity", "ratio")
        if self.ratio is None:
            check_fraction("sparsity", self.sparsity)
        else:
            check_fraction("ratio", self.ratio)
        if self.structure == "channel" and (self.ratio is not None or self.criterion == "random"):
            raise UserError(
                "structure 'channel' goes with sparsity and scores; leave out ratio and criterion "
                "'random'"
            )
        for option in ("keep_first", "keep_last", "seed"):
            check_whole(option, getattr(self, option), 0)

    def describe(self) -> str:
        """What a report calls the pattern."""
        units = {"channel": "hidden channels", "block": "heads and neurons"}[self.structure]
        return f"{units}, {self.sparsity or self.ratio}"

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Remove the groups in place.

        Args:
            model: as for `Method.prune`, like `progress` and `device`; the whole model computes at
                once.
            text: int64 `[n, length]`, length at least 2.

        Raises:
            UserError: a sparsity that the groups cannot give (the nearest is named), an
                architecture without them, bad tokens, gradients that are not finite.
        """
        with on_device(model, device):
            if self.structure == "channel":
                self._remove_channels(model, text, progress)
            else:
                self._remove_heads_and_neurons(model, text, progress)

    def _remove_channels(
        self, model: PreTrainedModel, text: torch.Tensor, progress: str | None
    ) -> None:
        """Leave the hidden channels of highest score, the same ones in the whole model."""
        count = count_channels(model.config, self.sparsity)
        salience = self._saliences(model, text, progress)
        scores = channel_scores(model, salience, self.criterion, self.aggregation)
        keep_channels(model, top_k(scores, count))

    def _remove_heads_and_neurons(
        self, model: PreTrainedModel, text: torch.Tensor, progress: str | None
    ) -> None:
        """Leave the heads and neurons of highest score in the blocks that are not spared."""
        # Compute the counts first, so that an impossible sparsity fails before the passes.
        stack = list(find_stack(model)[1])
        blocks = stack[self.keep_first : max(len(stack) - self.keep_last, 0)]
        if self.ratio is not None:
            removed_heads, removed_neurons = units_of_ratio(blocks, self.ratio)
        else:
            removed_heads, removed_neurons = units_of_sparsity(model, blocks, self.sparsity)
        scores_of = self._scores_of_units(model, text, progress)
        for block in blocks:
            parts = sublayers(block)
            # Units compete inside their block, and every block loses the same number.
            head_scores, neuron_scores = scores_of(parts)
            keep_kv_heads(parts, top_k(head_scores, parts.kv_heads - removed_heads))
            keep_neurons(parts, top_k(neuron_scores, parts.neurons - removed_neurons))
        # Spared blocks are wider: the configuration says so.
        sync_config(model)

    def _saliences(
        self, model: PreTrainedModel, text: torch.Tensor, progress: str | None
    ) -> dict[nn.Parameter, torch.Tensor]:
        """Parameter -> salience, under the criterion of this method (equations 3 to 5)."""
        return saliences(
            model,
            text,
            self.criterion,
            channels=self.structure == "channel",
            precision=self.precision,
            progress=progress,
        )

    def _scores_of_units(
        self, model: PreTrainedModel, text: torch.Tensor, progress: str | None
    ) -> Callable[[Sublayers], tuple[torch.Tensor, torch.Tensor]]:
        """A function from a block's sublayers to the scores of its heads and of its neurons."""
        if self.criterion == "random":
            return partial(_random_scores, torch.Generator().manual_seed(self.seed))
        return partial(
            unit_scores,
            salience=self._saliences(model, text, progress),
            criterion=self.criterion,
            aggregation=self.aggregation,
        )


def _random_scores(
    generator: torch.Generator, parts: Sublayers
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of key-value heads and neurons that say nothing."""
    heads = torch.rand(parts.kv_heads, generator=generator)
    neurons = torch.rand(parts.neurons, generator=generator)
    return heads, neurons

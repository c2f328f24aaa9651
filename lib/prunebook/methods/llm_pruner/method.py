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

Beside that code on random Llamas with a key-value head for each query head, the scores of all
criteria differ by less than 7e-7 of the largest and the pruned weights are equal, as are those
without hidden channels; with two query heads each, scores of heads differ by 6 %, and by 6e-8 with
its credit.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ...models.anatomy import find_stack, sublayers
from ...models.channels import keep_channels
from ...models.loading import on_device
from ...models.sizes import count_channels, top_k, units_of_ratio, units_of_sparsity
from ...models.surgery import keep_kv_heads, keep_neurons, sync_config
from ..base import Method
from .group_scores import channel_scores, random_scores, unit_scores
from .options import check_options
from .taylor import saliences


@dataclass(frozen=True)
class LLMPruner(Method):
    """Heads and neurons removed from the inner blocks, or hidden channels from the whole model.

    A key-value head goes with the query heads that read it. Kept weights do not change.

    Args:
        sparsity: fraction of all block parameters that goes, met to the nearest neuron; with
            structure `channel`, fraction of the hidden channels that goes, met to the nearest
            multiple of the number of attention heads.
        ratio: fraction of the units of every block that is not spared, instead; heads and neurons
            are each rounded as in the official code, but for the 1e-9 that the module names.
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
        check_options(self)

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
        passes = {"precision": self.precision, "progress": progress}
        with on_device(model, device):
            if self.structure == "channel":
                self._remove_channels(model, text, passes)
            else:
                self._remove_units(model, text, passes)

    def _remove_channels(self, model: PreTrainedModel, text: torch.Tensor, passes: dict) -> None:
        """Leave the hidden channels of highest score, the same ones in the whole model."""
        # The count comes first, so that an impossible sparsity fails before the passes.
        count = count_channels(model.config, self.sparsity)
        # S of every weight, then the score of each channel
        salience = saliences(model, text, self.criterion, channels=True, **passes)
        scores = channel_scores(model, salience, self.criterion, self.aggregation)
        keep_channels(model, top_k(scores, count))

    def _remove_units(self, model: PreTrainedModel, text: torch.Tensor, passes: dict) -> None:
        """Leave the heads and neurons of highest score in the blocks that are not spared."""
        stack = list(find_stack(model)[1])
        blocks = stack[self.keep_first : max(len(stack) - self.keep_last, 0)]
        # The counts come first, so that an impossible sparsity fails before the passes.
        if self.ratio is not None:
            removed_heads, removed_neurons = units_of_ratio(blocks, self.ratio)
        else:
            removed_heads, removed_neurons = units_of_sparsity(model, blocks, self.sparsity)
        # S of every weight (equations 3 to 5), which chance does without
        generator = torch.Generator().manual_seed(self.seed)
        if self.criterion != "random":
            salience = saliences(model, text, self.criterion, **passes)
        for block in blocks:
            parts = sublayers(block)
            if self.criterion == "random":
                head_scores, neuron_scores = random_scores(parts, generator)
            else:
                rule = (self.criterion, self.aggregation)
                head_scores, neuron_scores = unit_scores(parts, salience, *rule)
            # Units compete inside their block, and every block loses the same number.
            keep_kv_heads(parts, top_k(head_scores, parts.kv_heads - removed_heads))
            keep_neurons(parts, top_k(neuron_scores, parts.neurons - removed_neurons))
        # Spared blocks are wider: the configuration says so.
        sync_config(model)

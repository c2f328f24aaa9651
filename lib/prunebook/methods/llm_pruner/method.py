"""LLM-Pruner: cut out the coupled groups that gradient times weight says the loss will miss least.

Ma et al., LLM-Pruner: On the Structural Pruning of Large Language Models (NeurIPS 2023, arXiv
2305.11627); official code horseee/LLM-Pruner at 128a07d. Repair is a step of its own,
`finetune.lora`.

Differences from the official code: query heads are credited to the key-value head that they read
(there in strides, see `criteria.taylor.unit_scores`); with `sparsity`, what whole heads cannot give
up is taken from the neurons.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ...errors import UserError
from ...models.anatomy import Sublayers, find_stack, sublayers
from ...models.loading import on_device
from ...models.sizes import count_channels, top_k, units_of_ratio, units_of_sparsity
from ...models.surgery import keep_channels, keep_kv_heads, keep_neurons, sync_config
from ...passes.precision import PRECISIONS
from ...validation import check_choices, check_fraction, check_one_of, check_whole
from .taylor import AGGREGATIONS, CRITERIA, channel_scores, saliences, unit_scores

_CHOICES = {
    "criterion": (*CRITERIA, "random"),
    "aggregation": AGGREGATIONS,
    "structure": ("block", "channel"),
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class LLMPruner:
    """Key-value heads (with the query heads that read them) and neurons removed from the blocks
    between the first and the last, or hidden channels from the whole model; no kept weight changes.

    Args:
        sparsity: fraction of all block parameters that goes, met to the nearest neuron.
        ratio: instead, the fraction of the units of every block that is not spared, heads and
            neurons each rounded as the official code does.
        criterion: `element1` (the paper's choice), `vector`, `element2`, `mix`; rivals `l2` and
            `random`.
        aggregation: of the scores of a group's matrices.
        structure: `block` for heads and neurons, `channel` for hidden channels (only with
            `sparsity`).
        keep_first, keep_last: blocks at either end that are spared; 0 and 0 leave all blocks alike.
        seed: of `random`.
        precision: of the passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

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

    paper: ClassVar[str] = "llm-pruner"
    needs_calibration: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Structured"],
        "criteria": ["Other"],
        "budget": ["Sparsity"],
        "retrain": ["Efficient"],
    }

    def __post_init__(self):
        check_choices(self, "llm-pruner", _CHOICES)
        check_one_of(self, "sparsity", "ratio")
        check_fraction(
            *("sparsity", self.sparsity) if self.ratio is None else ("ratio", self.ratio)
        )
        if self.structure == "channel" and (self.ratio is not None or self.criterion == "random"):
            raise UserError(
                "structure 'channel' goes with sparsity and scores; leave out ratio and criterion "
                "'random'"
            )
        for option in ("keep_first", "keep_last", "seed"):
            check_whole(option, getattr(self, option), 0)

    @property
    def description(self) -> str:
        """What the report calls the pattern."""
        what = "hidden channels" if self.structure == "channel" else "heads and neurons"
        return f"{what}, {self.sparsity or self.ratio}"

    @torch.no_grad()
    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Remove the groups in place.

        Args:
            calibration: int64 `[n, length]`, length at least 2.
            progress: label of a progress bar, None for none.
            device: where the whole model computes; None for where it is.

        Raises:
            UserError: a sparsity that the groups cannot give (the nearest is named), an
                architecture without them, bad tokens, gradients that are not finite.
        """
        stack = find_stack(model)[1]
        channels = self.structure == "channel"
        free = list(stack)[self.keep_first : max(len(stack) - self.keep_last, 0)]
        if channels:
            left = count_channels(model.config, self.sparsity)
        elif self.ratio is not None:
            gone = units_of_ratio(free, self.ratio)
        else:
            gone = units_of_sparsity(model, free, self.sparsity)
        scores = _Random(self.seed)
        with on_device(model, device):
            if self.criterion != "random":
                salience = saliences(
                    model,
                    calibration,
                    self.criterion,
                    channels=channels,
                    precision=self.precision,
                    progress=progress,
                )
                scores = partial(
                    unit_scores,
                    salience=salience,
                    criterion=self.criterion,
                    aggregation=self.aggregation,
                )
            if channels:
                of_channels = channel_scores(model, salience, self.criterion, self.aggregation)
                keep_channels(model, top_k(of_channels, left))
                return
            for block in free:
                parts = sublayers(block)
                of_heads, of_neurons = scores(parts)
                keep_kv_heads(parts, top_k(of_heads, parts.kv_heads - gone[0]))
                keep_neurons(parts, top_k(of_neurons, parts.neurons - gone[1]))
            sync_config(model)


class _Random:
    """Scores of heads and neurons that say nothing."""

    def __init__(self, seed: int):
        self._draw = torch.Generator().manual_seed(seed)

    def __call__(self, parts: Sublayers) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(parts.kv_heads, generator=self._draw), torch.rand(
            parts.neurons, generator=self._draw
        )

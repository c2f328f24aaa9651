"""Shortened LLaMA: rank whole blocks once, by the perplexity without each, and drop the cheapest.

Kim et al., Shortened LLaMA: A Simple Depth Pruning for Large Language Models (arXiv 2402.02834);
official code Nota-NetsPresso/shortened-llm at 4031a92. Retraining is a step of its own,
`finetune.lora`.

Difference from the official code: it keeps the first four and the last two blocks for every score,
unless a flag turns that off; here, as in the paper, for the scores marked "+": `keep_first=4,
keep_last=2`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..criteria.block_scores import magnitude_scores, perplexity_scores, taylor_scores
from ..models.anatomy import find_blocks
from ..models.loading import on_device
from ..models.sizes import count_blocks
from ..models.surgery import remove_blocks
from ..passes.precision import PRECISIONS
from ..validation import check_blocks, check_choices, check_whole, describe_blocks

_CHOICES = {"criterion": ("perplexity", "taylor", "magnitude"), "precision": PRECISIONS}


@dataclass(frozen=True)
class ShortenedLLaMA:
    """The blocks of lowest score removed, wherever they stand; no kept weight changes.

    Args:
        blocks: n, how many blocks go.
        sparsity: instead, the fraction of the blocks that goes, in (0, 1), rounded down to whole
            blocks.
        criterion: `perplexity` without the block (the authors' choice), or the block's `taylor` or
            `magnitude` score.
        keep_first, keep_last: blocks at either end that stay whatever their score.
        precision: of the passes, `exact` (the model's dtype) or `fast` (bfloat16 products).

    Raises:
        UserError: an impossible option.
    """

    blocks: int | None = None
    sparsity: float | None = None
    criterion: str = "perplexity"
    keep_first: int = 0
    keep_last: int = 0
    precision: str = "exact"

    paper: ClassVar[str] = "shortened-llama"
    needs_calibration: ClassVar[bool] = True
    makes_smaller: ClassVar[bool] = True
    facets: ClassVar[dict] = {
        "type": ["Structured-Depth"],
        "criteria": ["Perplexity"],
        "budget": ["Sparsity"],
    }

    def __post_init__(self):
        check_choices(self, "shortened-llama", _CHOICES)
        check_blocks(self.blocks, self.sparsity)
        for option in ("keep_first", "keep_last"):
            check_whole(option, getattr(self, option), 0)

    @property
    def description(self) -> str:
        """What the report calls the pattern."""
        return describe_blocks(self.blocks, self.sparsity)

    def scores(self, model, calibration: torch.Tensor, progress: str | None = None) -> torch.Tensor:
        """One score a block, float64 `[L]`; the lowest go first."""
        if self.criterion == "magnitude":
            return magnitude_scores(model)
        if self.criterion == "taylor":
            return taylor_scores(model, calibration, self.precision)
        return perplexity_scores(model, calibration, self.precision, progress)

    @torch.no_grad()
    def prune(
        self, model, calibration: torch.Tensor, progress: str | None = None, device=None
    ) -> None:
        """Remove the blocks in place.

        Args:
            calibration: int64 `[n, length]`, length at least 2.
            progress: label of a progress bar, None for none.
            device: where the whole model computes; None for where it is.

        Raises:
            UserError: a count that the model and what is kept do not allow, bad tokens, gradients
                that are not finite.
        """
        total = len(find_blocks(model))
        free = range(self.keep_first, total - self.keep_last)
        count = count_blocks(total, self.blocks, self.sparsity, min(len(free), total - 1))
        with on_device(model, device):
            scores = self.scores(model, calibration, progress).tolist()
        remove_blocks(model, sorted(free, key=lambda index: (scores[index], index))[:count])

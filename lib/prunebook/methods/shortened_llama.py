"""Shortened LLaMA: rank whole blocks once, by the perplexity without each, and drop the lowest.

Kim et al., Shortened LLaMA: A Simple Depth Pruning for Large Language Models (arXiv 2402.02834);
official code Nota-NetsPresso/shortened-llm at 4031a92. Retraining is a step of its own,
`recovery.finetune.lora`.

Difference from the official code: it keeps the first four and the last two blocks for every
criterion, unless a flag turns that off, so that the published models of the perplexity score are
guarded, too. Here, as in the paper, only where it is asked for, which is for the scores marked "+":
`keep_first=4, keep_last=2`.

On tiny Llamas the official scripts give the same order and bit-equal pruned models, scores within
1e-6. Further differences: biases count here; Taylor gradients are of the mean loss over the text,
there of the sum of the batches' means.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from ..criteria.block_scores import magnitude_scores, perplexity_scores, taylor_scores
from ..models.anatomy import find_blocks
from ..models.loading import on_device
from ..models.sizes import blocks_to_remove
from ..models.surgery import remove_blocks
from ..passes.precision import PRECISIONS
from ..validation import check_blocks, check_choices, check_whole, describe_blocks
from .base import Method

_CHOICES = {"criterion": ("perplexity", "taylor", "magnitude"), "precision": PRECISIONS}


@dataclass(frozen=True)
class ShortenedLLaMA(Method):
    """Removal of the blocks of lowest score, wherever they stand; the others keep their weights.

    Args:
        remove_blocks: number n of blocks that go.
        sparsity: fraction of the blocks that goes instead, in (0, 1), rounded down to whole blocks.
        criterion: `perplexity` without the block (the authors' choice), or the block's `taylor` or
            `magnitude` score.
        keep_first: blocks at the bottom that stay whatever their score.
        keep_last: blocks at the top that stay whatever their score.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Raises:
        UserError: an impossible option.
    """

    remove_blocks: int | None = None
    sparsity: float | None = None
    criterion: str = "perplexity"
    keep_first: int = 0
    keep_last: int = 0
    precision: str = "exact"

    paper: ClassVar[str | None] = "shortened-llama"
    makes_smaller: ClassVar[bool] = True
    sparsity_of: ClassVar[str | None] = "the blocks"

    def __post_init__(self):
        check_choices(self, "shortened-llama", _CHOICES)
        check_blocks(self.remove_blocks, self.sparsity)
        for option in ("keep_first", "keep_last"):
            check_whole(option, getattr(self, option), 0)

    def describe(self) -> str:
        """What a report calls the pattern."""
        return describe_blocks(self.remove_blocks, self.sparsity)

    def scores(
        self, model: PreTrainedModel, text: torch.Tensor, progress: str | None = None
    ) -> torch.Tensor:
        """The score of each block, float64 `[L]`; the lowest go first.

        Args:
            model: as for `Method.prune`, like `text` and `progress`.
        """
        if self.criterion == "magnitude":
            # I_mag = sum over the block's weights of |W_ij|
            return magnitude_scores(model)
        if self.criterion == "taylor":
            # I_tay = sum over the block's weights of |dL/dW_ij W_ij|
            return taylor_scores(model, text, self.precision)
        # I_ppl = the perplexity of the model with only this block taken out
        return perplexity_scores(model, text, self.precision, progress)

    @torch.no_grad()
    def prune(
        self,
        model: PreTrainedModel,
        text: torch.Tensor,
        *,
        progress: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Remove the blocks in place.

        Args:
            model: as for `Method.prune`, like `progress` and `device`; the whole model computes at
                once.
            text: int64 `[n, length]`, length at least 2.

        Raises:
            UserError: a count that the model and what is kept do not allow, bad tokens, gradients
                that are not finite.
        """
        # The blocks that may go: for the scores marked "+", not those at either end.
        total = len(find_blocks(model))
        candidates = range(self.keep_first, total - self.keep_last)
        most = min(len(candidates), total - 1)
        count = blocks_to_remove(total, self.remove_blocks, self.sparsity, most)
        with on_device(model, device):
            scores = self.scores(model, text, progress).tolist()
        # One ranking on the dense model, never renewed; of equal scores the lower block goes first.
        ranking = sorted(candidates, key=lambda index: (scores[index], index))
        remove_blocks(model, ranking[:count])

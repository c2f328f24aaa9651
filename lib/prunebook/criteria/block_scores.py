"""What a whole decoder block is worth: the perplexity without it, its magnitude, its first-order
Taylor score.

Kim et al., Shortened LLaMA: A Simple Depth Pruning for Large Language Models (arXiv 2402.02834);
official code Nota-NetsPresso/shortened-llm at 4031a92. A low score means that the block can go.
"""

from collections.abc import Callable

import torch

from ..errors import UserError
from ..measure.quality import measure_quality
from ..models.anatomy import find_blocks
from ..passes.backward import backward, block_gradients, windows_by_batch
from ..passes.sequential import starting_at_block, walk


def perplexity_scores(
    model, tokens: torch.Tensor, precision: str = "exact", progress: str | None = None
):
    """The perplexity of the model without each block in turn, float64 `[L]`; infinity where it is
    not finite. What enters a block enters the next one instead: the blocks before it compute once
    for all scores.

    Args:
        tokens: int64 `[n, length]`.
        precision: of the forward passes.
        progress: label of a progress bar.

    Raises:
        UserError: bad tokens.
    """
    scores = []
    for step in walk(model, tokens, precision=precision, progress=progress):
        with starting_at_block(model, step.index + 1, step.hidden):
            scores.append(
                measure_quality(model, tokens, precision=precision).nll.double().mean().exp()
            )
    return torch.stack(scores).nan_to_num(torch.inf, torch.inf)


def magnitude_scores(model) -> torch.Tensor:
    """The sum over all parameters of a block, norms included, of their absolute values; float64
    `[L]`."""
    return _of_blocks(model, torch.abs)


def taylor_scores(model, tokens: torch.Tensor, precision: str = "exact") -> torch.Tensor:
    """The sum over all parameters of a block of `|w dL/dw|`, with L the mean next-token loss over
    all of `tokens`; float64 `[L]`. Gradients of the whole text are added up before the absolute
    value is taken.

    Args:
        tokens: int64 `[n, length]`, length at least 2.
        precision: of the forward and backward passes.

    Raises:
        UserError: bad tokens, or gradients that are not finite.
    """
    batches = windows_by_batch(model, tokens)
    with block_gradients(model):
        for batch in batches:
            backward(model, batch, precision, over=len(tokens) * (tokens.shape[1] - 1))
        scores = _of_blocks(model, lambda parameter: (parameter * parameter.grad).abs())
    if not scores.isfinite().all():
        raise UserError(
            "calibration gradients hold NaN or infinity; use a wider dtype such as float32, or "
            "other text"
        )
    return scores


@torch.no_grad()
def _of_blocks(model, value: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    return torch.stack(
        [
            sum(value(parameter).double().sum() for parameter in block.module.parameters()).cpu()
            for block in find_blocks(model)
        ]
    )

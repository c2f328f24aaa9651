"""How much a whole decoder block matters, by three scores; a low one means that it can go.

The scores are the perplexity without the block, its magnitude and its first-order Taylor score.
Kim et al., Shortened LLaMA: A Simple Depth Pruning for Large Language Models (arXiv 2402.02834);
official code Nota-NetsPresso/shortened-llm at 4031a92.
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..measure.quality import measure_quality
from ..models.anatomy import find_blocks
from ..passes.backward import backward, block_gradients, windows_by_batch
from ..passes.capture import starting_at_block
from ..passes.sequential import walk


def perplexity_scores(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    precision: str = "exact",
    progress: str | None = None,
) -> torch.Tensor:
    """The perplexity of the model without each block in turn.

    What enters a block enters the next one instead, so that the blocks before it compute once for
    all scores.

    Args:
        model: a causal language model with L recognisable blocks.
        tokens: int64 `[n, length]`.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.

    Returns:
        float64 `[L]`, infinity where the perplexity is not finite.

    Raises:
        UserError: bad tokens.
    """
    scores = []
    for step in walk(model, tokens, precision=precision, progress=progress):
        # Nothing is pruned, so the walk carries the dense model's states. The model starts after
        # this block, on the inputs of this block.
        with starting_at_block(model, step.index + 1, step.hidden):
            quality = measure_quality(model, tokens, precision=precision)
        scores.append(quality.nll.double().mean().exp())
    return torch.stack(scores).nan_to_num(nan=torch.inf, posinf=torch.inf)


def magnitude_scores(model: PreTrainedModel) -> torch.Tensor:
    """The sum of the absolute values of all parameters of each block, norms included.

    Returns:
        float64 `[L]`.
    """
    return _sums_by_block(model, torch.abs)


def taylor_scores(
    model: PreTrainedModel, tokens: torch.Tensor, precision: str = "exact"
) -> torch.Tensor:
    """The sum of `|w dL/dw|` over all parameters of each block.

    L is the mean next-token loss over all of the text: gradients are added up before the absolute
    value is taken.

    Args:
        model: a causal language model with L recognisable blocks.
        tokens: int64 `[n, length]`, length at least 2.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).

    Returns:
        float64 `[L]`.

    Raises:
        UserError: bad tokens, or gradients that are not finite.
    """
    batches = windows_by_batch(model, tokens)
    predicted = len(tokens) * (tokens.shape[1] - 1)
    with block_gradients(model):
        # dL/dw of the whole text, as the sum over its batches
        for batch in batches:
            backward(model, batch, precision, over=predicted)
        scores = _sums_by_block(model, lambda parameter: (parameter * parameter.grad).abs())
    if not scores.isfinite().all():
        raise UserError(
            "calibration gradients hold NaN or infinity; use a wider dtype such as float32, or "
            "other text"
        )
    return scores


@torch.no_grad()
def _sums_by_block(
    model: PreTrainedModel, value: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The sum of a value over all parameters of each block, float64 `[L]` on the CPU."""
    sums = []
    for block in find_blocks(model):
        parameters = block.module.parameters()
        sums.append(sum(value(parameter).double().sum() for parameter in parameters).cpu())
    return torch.stack(sums)

"""Gradient times weight: what the loss would change by if a weight went, for every weight.

Ma et al., LLM-Pruner (NeurIPS 2023, arXiv 2305.11627), equations 3 to 5; official code
horseee/LLM-Pruner at 128a07d. W is a weight, g the gradient of the mean next-token loss, and A the
mean over windows of their squared gradients, which stands for the diagonal of the Hessian. As in
the official code, A is a mean where equation 5 has a sum, and `element2` has no factor 1/2.
"""

from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from ...errors import UserError
from ...passes.backward import backward, block_gradients, windows_by_batch

CRITERIA = ("vector", "element1", "element2", "mix", "l2")
# the criteria that need A
_SECOND_ORDER = ("element2", "mix")


def weight_salience(
    criterion: str, weight: torch.Tensor, gradient: torch.Tensor, squares: torch.Tensor | None
) -> torch.Tensor:
    """S of every entry of one weight matrix: what the loss would change by if it went.

    Args:
        criterion: one of `CRITERIA` but `l2`.
        weight: W, of any shape.
        gradient: g, of the same shape.
        squares: A, of the same shape; None where the criterion does not need it.

    Returns:
        A tensor of the shape of W. Its signs matter: `vector` sums them before it takes a size.

    Raises:
        UserError: a gradient that is not finite.
    """
    if not gradient.isfinite().all():
        raise UserError(
            "calibration gradients hold NaN or infinity; use a wider dtype such as float32"
        )
    if criterion == "element2":
        # equation 5, its second-order term alone
        return weight * squares * weight
    if criterion == "mix":
        # equation 5, both terms
        return weight * gradient - weight * squares * weight / 2
    # equation 3 without its Hessian term, and the first-order term of equation 5
    return weight * gradient


@torch.no_grad()
def saliences(
    model: PreTrainedModel,
    tokens: torch.Tensor | None,
    criterion: str,
    *,
    channels: bool = False,
    precision: str = "exact",
    progress: str | None = None,
) -> dict[nn.Parameter, torch.Tensor]:
    """The salience S of each weight: its part in the score of every group that it belongs to.

    `vector` and `element1`: `W g`. `element2`: `W A W`. `mix`: `W g - W A W / 2`. `l2`: `W^2`,
    which needs no text.

    Args:
        model: a causal language model.
        tokens: int64 `[n, length]`, length at least 2; None for `l2`.
        criterion: one of `CRITERIA`.
        channels: score embeddings and norms too, not only what is inside the blocks.
        precision: `exact` (passes in the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.

    Returns:
        Parameter -> S, of the parameter's shape.

    Raises:
        UserError: bad tokens, or gradients that are not finite.
    """
    if criterion == "l2":
        return {parameter: parameter.detach().square() for parameter in model.parameters()}
    second_order = criterion in _SECOND_ORDER
    # A needs each window's own gradient, so every window gets its own pass.
    batch_size = None
    if second_order:
        batch_size = 1
    batches = windows_by_batch(model, tokens, batch_size)
    bar = tqdm(batches, desc=progress, unit="batch", disable=progress is None)
    # parameter -> A, where it is needed
    squares = {}
    with block_gradients(model, embeddings=channels) as parameters:
        if second_order:
            gradients, squares = _window_gradients(model, parameters, bar, precision, len(tokens))
        else:
            gradients = _gradients(model, parameters, bar, precision, len(tokens))
    # S of every weight, from its g and A
    salience_of = {}
    for weight, gradient in gradients.items():
        salience_of[weight] = weight_salience(criterion, weight, gradient, squares.get(weight))
    return salience_of


def _gradients(
    model: PreTrainedModel,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[torch.Tensor],
    precision: str,
    windows: int,
) -> dict[nn.Parameter, torch.Tensor]:
    """Parameter -> g, the gradient of the mean loss over all windows.

    Args:
        model: the model.
        parameters: what gradients are kept of.
        batches: int64 `[windows, length]` each.
        precision: of the passes.
        windows: number of windows in all batches.
    """
    # The gradients of all batches add up.
    for batch in batches:
        backward(model, batch, precision, over=(batch.shape[1] - 1) * windows)
    return {parameter: parameter.grad for parameter in parameters}


def _window_gradients(
    model: PreTrainedModel,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[torch.Tensor],
    precision: str,
    windows: int,
) -> tuple[dict[nn.Parameter, torch.Tensor], dict[nn.Parameter, torch.Tensor]]:
    """Parameter -> g, and parameter -> A, from the gradient of each window alone.

    Args:
        model: as for `_gradients`, like `parameters`, `precision` and `windows`.
        batches: int64 `[1, length]` each.
    """
    gradients = {}
    squares = {}
    for batch in batches:
        backward(model, batch, precision, over=batch.shape[1] - 1)
        for parameter in parameters:
            # In float32: squares of small gradients are 0 in float16.
            gradient = parameter.grad.float()
            gradients[parameter] = gradients.get(parameter, 0) + gradient / windows
            squares[parameter] = squares.get(parameter, 0) + gradient.square() / windows
            parameter.grad = None
    return gradients, squares

"""Backward passes through a whole model: the loss of the next token, and statistics of what flows
back."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from ..data.windows import check_tokens
from ..errors import UserError, not_finite
from ..models.anatomy import find_blocks
from .precision import matmul_precision
from .sequential import Statistic

# of a pass: logits of all of them and their gradient are held
_TOKENS = {"cpu": 1024, "cuda": 8192}


def next_token_loss(model: nn.Module, batch: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Mean (or `sum`) negative log-likelihood of the predicted tokens of `batch [windows, length]`,
    in nats, in float32."""
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(
        logits.flatten(0, 1), batch[:, 1:].flatten().to(logits.device), reduction=reduction
    )


def windows_by_batch(
    model: nn.Module, tokens: torch.Tensor, batch_size: int | None = None
) -> tuple[torch.Tensor, ...]:
    """`tokens [n, length]` in batches for backward passes, by default of about 1,000 tokens on CPU
    and 8,000 on CUDA.

    Raises:
        UserError: bad tokens, or windows too short to predict one.
    """
    check_tokens(model, tokens)
    if tokens.shape[1] < 2:
        raise UserError(
            "calibration must have windows of at least 2 tokens to predict one, not "
            f"{list(tokens.shape)}"
        )
    device = model.get_input_embeddings().weight.device
    return tokens.split(batch_size or max(1, _TOKENS.get(device.type, 1024) // tokens.shape[1]))


def backward(model: nn.Module, batch: torch.Tensor, precision: str, over: int = 1) -> None:
    """One forward and backward pass of the summed next-token loss of `batch [windows, length]`,
    divided by `over`."""
    device = model.get_input_embeddings().weight.device
    with torch.enable_grad(), matmul_precision(device, precision):
        (next_token_loss(model, batch.to(device), "sum") / over).backward()


@contextlib.contextmanager
def restore_requires_grad(model: nn.Module) -> Iterator[None]:
    """Which parameters require gradients is afterwards as it was."""
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def block_gradients(model: nn.Module, embeddings: bool = False) -> Iterator[list[nn.Parameter]]:
    """While open, gradients are kept of the parameters inside the blocks (all of the model's with
    `embeddings`), and of no others; yields those parameters. Afterwards there are none."""
    parts = [model] if embeddings else [block.module for block in find_blocks(model)]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    try:
        with restore_requires_grad(model):
            model.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            model.zero_grad(set_to_none=True)
            yield parameters
    finally:
        model.zero_grad(set_to_none=True)


def backpropagate(
    model: nn.Module,
    tokens: torch.Tensor,
    factory: Callable[[int, torch.device], Statistic],
    *,
    batch_size: int | None = None,
    precision: str = "exact",
    progress: str | None = None,
) -> tuple[dict[str, Statistic], dict[str, Statistic]]:
    """One forward and backward pass over all windows through the whole model, where it is:
    statistics of the input of every linear inside the blocks and of the gradient of the loss with
    respect to its output.

    The loss is the sum over the predicted tokens of a window of their negative log-likelihood, so a
    gradient does not depend on how windows are batched. Weights are frozen meanwhile (no gradient
    is computed or kept for them) and each batch's graph is freed before the next.

    Args:
        tokens: int64 `[n, length]`, at least two tokens long.
        factory: `(width, device)` -> a new statistic.
        batch_size: windows a pass; by default about 1,000 tokens on CPU and 8,000 on CUDA.
        precision: `exact` (the model's dtype) or `fast` (bfloat16 matrix products).
        progress: label of a progress bar on stderr; None for no bar.

    Returns:
        Name of linear -> statistic of its input, and name -> statistic of its output's gradient.
        Linears that read the same tensor share the first; linears that never ran are absent.

    Raises:
        UserError: bad tokens, a model without recognisable blocks, activations or gradients that
            are not finite.
    """
    batches = windows_by_batch(model, tokens, batch_size)
    linears = {
        name: linear for block in find_blocks(model) for name, linear in block.linears.items()
    }
    inputs: dict[str, Statistic] = {}
    gradients: dict[str, Statistic] = {}
    leaders: dict[str, str] = {}
    # held within a batch, so that no later tensor is mistaken for one
    seen: list[tuple[str, torch.Tensor]] = []

    def update(statistic: Statistic, values: torch.Tensor) -> None:
        with torch.no_grad(), matmul_precision(values.device, "exact"):
            statistic.update(values.reshape(len(batch), -1, values.shape[-1]))

    def observe(name: str):
        def hook(_, arguments, output):
            value = arguments[0]
            if name not in leaders:
                leaders[name] = next((first for first, tensor in seen if tensor is value), name)
                seen.append((name, value))
            if name not in gradients:
                gradients[name] = factory(output.shape[-1], output.device)
                inputs[name] = inputs.get(leaders[name]) or factory(value.shape[-1], value.device)
            if leaders[name] == name:
                update(inputs[name], value.detach())
            output.register_hook(lambda gradient: update(gradients[name], gradient))

        return hook

    embedding = model.get_input_embeddings()
    handles = [linear.register_forward_hook(observe(name)) for name, linear in linears.items()]
    # With frozen weights the graph begins at the embedded tokens.
    handles.append(embedding.register_forward_hook(lambda _, __, output: output.requires_grad_()))
    try:
        with restore_requires_grad(model):
            model.requires_grad_(False)
            for batch in tqdm(batches, desc=progress, unit="batch", disable=progress is None):
                backward(model, batch, precision)
                seen.clear()
    finally:
        for handle in handles:
            handle.remove()
    for kind, statistics in (("activations", inputs), ("gradients", gradients)):
        for name, statistic in statistics.items():
            if not statistic.is_finite():
                raise not_finite(f"{kind} of {name}")
    return inputs, gradients

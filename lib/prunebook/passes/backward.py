"""Backward passes through a whole model: the loss of the next token, and statistics of what flows
back."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from ..data.token_check import check_tokens
from ..errors import UserError, not_finite
from ..models.anatomy import find_blocks
from .hooks import Hook, forward_hooks, hook_gradient
from .precision import matmul_precision
from .statistics import Statistic

# Tokens of one backward pass: the logits of all of them and their gradient are in memory.
TOKENS_PER_PASS = {"cpu": 1024, "cuda": 8192}


def next_token_loss(
    model: PreTrainedModel, batch: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """Negative log-likelihood of the predicted tokens, in nats, in float32.

    Args:
        model: a causal language model.
        batch: int64 `[windows, length]`; the first token of a window is not predicted.
        reduction: `mean` or `sum` over the predicted tokens.
    """
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(
        logits.flatten(0, 1), batch[:, 1:].flatten().to(logits.device), reduction=reduction
    )


def windows_by_batch(
    model: PreTrainedModel, tokens: torch.Tensor, batch_size: int | None = None
) -> tuple[torch.Tensor, ...]:
    """Split calibration windows into batches for backward passes.

    Args:
        model: the model that will read them.
        tokens: int64 `[n, length]`.
        batch_size: windows a batch; by default about 1,000 tokens on CPU and 8,000 on CUDA.

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
    tokens_per_pass = TOKENS_PER_PASS.get(device.type, 1024)
    return tokens.split(batch_size or max(1, tokens_per_pass // tokens.shape[1]))


def backward(model: PreTrainedModel, batch: torch.Tensor, precision: str, over: int = 1) -> None:
    """One forward and backward pass of the summed next-token loss.

    Args:
        model: its parameters and tensors that require gradients get them added up.
        batch: int64 `[windows, length]`.
        precision: `exact` or `fast`.
        over: number that the loss is divided by.
    """
    device = model.get_input_embeddings().weight.device
    with torch.enable_grad(), matmul_precision(device, precision):
        (next_token_loss(model, batch.to(device), "sum") / over).backward()


@contextlib.contextmanager
def restore_requires_grad(model: nn.Module) -> Iterator[None]:
    """Leave which parameters require gradients, at the end, as it was at the start."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def block_gradients(
    model: PreTrainedModel, embeddings: bool = False
) -> Iterator[list[nn.Parameter]]:
    """Keep gradients of the parameters inside the blocks, and of no others, while the context is
    open; yield those parameters. Afterwards there are no gradients.

    Args:
        model: a model with recognisable blocks.
        embeddings: keep gradients of all parameters of the model instead.
    """
    parts = [model]
    if not embeddings:
        parts = [block.module for block in find_blocks(model)]
    parameters = []
    for part in parts:
        parameters += part.parameters()
    try:
        with restore_requires_grad(model):
            # all others are frozen, so that no gradient is computed or kept for them
            model.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            model.zero_grad(set_to_none=True)
            yield parameters
    finally:
        model.zero_grad(set_to_none=True)


class _Observer:
    """The hooks of `backpropagate`, which gather statistics of inputs and gradients of outputs.

    Linears that read one and the same tensor share the statistic of the first of them to run, the
    leader.
    """

    def __init__(self, factory: Callable[[int, torch.device], Statistic]):
        self._factory = factory
        self._leader_of: dict[str, str] = {}
        self._inputs_of_batch: list[tuple[str, torch.Tensor]] = []
        self._windows = 0
        self.inputs: dict[str, Statistic] = {}
        self.gradients: dict[str, Statistic] = {}

    @contextlib.contextmanager
    def batch(self, windows: int) -> Iterator[None]:
        """Around the passes of one batch of so many windows.

        Its inputs are held until the end, so that no later tensor is mistaken for one of them.
        """
        self._windows = windows
        yield
        self._inputs_of_batch.clear()

    def hook(self, name: str) -> Hook:
        """The forward hook of the linear `name`."""

        def hook(_, arguments, output):
            x = arguments[0]
            self._prepare(name, x, output)
            if self._leader_of[name] == name:
                self._update(self.inputs[name], x.detach())
            # called in the backward pass, with dL/d output
            hook_gradient(output, lambda gradient: self._update(self.gradients[name], gradient))

        return hook

    def _prepare(self, name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        """Find the leader and make the statistics of a linear that runs for the first time."""
        if name not in self._leader_of:
            leaders = (first for first, tensor in self._inputs_of_batch if tensor is x)
            self._leader_of[name] = next(leaders, name)
            self._inputs_of_batch.append((name, x))
        if name not in self.gradients:
            self.gradients[name] = self._factory(output.shape[-1], output.device)
            of_leader = self.inputs.get(self._leader_of[name])
            self.inputs[name] = of_leader or self._factory(x.shape[-1], x.device)

    def _update(self, statistic: Statistic, values: torch.Tensor) -> None:
        # [windows, tokens, width], also where a block flattens its tokens; in float32 always
        with torch.no_grad(), matmul_precision(values.device, "exact"):
            statistic.update(values.reshape(self._windows, -1, values.shape[-1]))


def backpropagate(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    factory: Callable[[int, torch.device], Statistic],
    *,
    batch_size: int | None = None,
    precision: str = "exact",
    progress: str | None = None,
) -> tuple[dict[str, Statistic], dict[str, Statistic]]:
    """Gather statistics of the input of every linear inside the blocks, and of the gradient of the
    loss with respect to its output, in one forward and backward pass over all windows.

    The model stays where it is. The loss is the sum over the predicted tokens of a window of their
    negative log-likelihood, so a gradient does not depend on how windows are batched. Weights are
    frozen meanwhile (no gradient is computed or kept for them) and each batch's graph is freed
    before the next.

    Args:
        model: a causal language model with recognisable blocks.
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
    observer = _Observer(factory)
    hooks = []
    for block in find_blocks(model):
        hooks += [(linear, observer.hook(name)) for name, linear in block.linears.items()]
    # With frozen weights the graph begins at the embedded tokens.
    hooks.append((model.get_input_embeddings(), lambda _, __, output: output.requires_grad_()))
    # Each batch: forward, with the statistics of inputs; backward, with those of gradients.
    with forward_hooks(hooks), restore_requires_grad(model):
        model.requires_grad_(False)
        for batch in tqdm(batches, desc=progress, unit="batch", disable=progress is None):
            with observer.batch(len(batch)):
                backward(model, batch, precision)
    _check_finite("activations", observer.inputs)
    _check_finite("gradients", observer.gradients)
    return observer.inputs, observer.gradients


def _check_finite(kind: str, statistics: dict[str, Statistic]) -> None:
    for name, statistic in statistics.items():
        if not statistic.is_finite():
            raise not_finite(f"{kind} of {name}")

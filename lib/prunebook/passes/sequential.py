"""Walk the decoder blocks of a causal language model: inputs captured once, statistics gathered by
hooks, pruned outputs propagated. The only place that hooks modules or moves blocks; it knows no
method.

On the computing device at any time are one block and one batch of activations; the captured inputs
of all windows stay in host memory, and the other blocks where the model is.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn
from torch.func import functional_call
from tqdm import tqdm
from transformers.pytorch_utils import Conv1D

from ..data.windows import check_tokens
from ..errors import not_finite
from ..models.anatomy import Block, find_blocks, find_stack, weight_of
from .precision import matmul_precision

# Tokens of a forward pass, by device and precision. On a CPU, activations of 1,024 tokens stay in
# its caches; `exact` keeps 2,048, since the size of a batch moves the last digits of statistics,
# and with them masks.
_BATCH_TOKENS = {
    ("cpu", "exact"): 2048,
    ("cpu", "fast"): 1024,
    ("cuda", "exact"): 16384,
    ("cuda", "fast"): 16384,
}

# the argument in which transformers hands rotary cosines and sines to blocks
_POSITIONS = "position_embeddings"


class Statistic(Protocol):
    """What is gathered about the input of a linear (see `criteria/`); made by `factory(width,
    device)`."""

    def update(self, inputs: torch.Tensor) -> None:
        """Take `inputs [sequences, tokens, in]` of one batch."""

    def is_finite(self) -> bool:
        """Whether everything seen was finite."""


class _Stop(Exception):
    """Ends a forward pass early, once all that was wanted from it has been seen."""


class _Recorder(nn.Module):
    """Stands in for a block while inputs are captured: keeps what it is called with, computes
    nothing."""

    def __init__(self, block: nn.Module):
        super().__init__()
        # not registered: the block must not move with this module
        object.__setattr__(self, "block", block)
        self.arguments: dict[int, tuple] = {}
        self.hidden: torch.Tensor | None = None

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "block"), name)  # e.g. `attention_type`

    def forward(self, hidden: torch.Tensor, *positional, **named) -> torch.Tensor:
        self.hidden = hidden
        # masks and positions depend on the batch size only
        self.arguments.setdefault(len(hidden), (positional, named))
        return hidden


class _Source(_Recorder):
    """Stands in for a block: hands on given states, a batch of windows at a call, whatever enters
    it."""

    def __init__(self, block: nn.Module, states: torch.Tensor):
        super().__init__(block)
        self._left = states

    def forward(self, hidden: torch.Tensor, *_, **__) -> torch.Tensor:
        given, self._left = self._left.tensor_split([len(hidden)])
        return given.to(hidden.device)


@contextlib.contextmanager
def starting_at_block(model: nn.Module, index: int, states: torch.Tensor) -> Iterator[None]:
    """Let passes begin at block `index`, 1 or more, or behind the last, while the context is open.

    Args:
        states: `[n, length, width]` that enter it, of all windows in the order in which the passes
            take them.
    """
    _, stack = find_stack(model)
    skipped = list(stack)[:index]
    for i, block in enumerate(skipped):
        stack[i] = _Recorder(block) if i < index - 1 else _Source(block, states)
    try:
        yield
    finally:
        for i, block in enumerate(skipped):
            stack[i] = block


@dataclass
class BlockStep(Block):
    """A block while `walk` stands at it, with the inputs that reach it through the pruned blocks
    before it.

    `hidden` is `[n, length, width]`; `groups` lists linears that see one and the same input.
    """

    hidden: torch.Tensor = None
    arguments: dict[int, tuple] = field(default_factory=dict)
    batch_size: int = 1
    device: torch.device = None
    precision: str = "exact"
    groups: list[list[str]] = field(default_factory=list)
    propagated: bool = False

    def collect(
        self,
        factory: Callable[[int, torch.device], Statistic],
        *,
        propagate: bool = False,
        outputs: torch.Tensor | None = None,
    ) -> dict[str, Statistic]:
        """Run all inputs through the block as it is now; one statistic for each distinct input.

        Linears that read the same tensor (q/k/v, gate/up) share one statistic object. After the
        first batch the forward pass ends at the last linear, whose output nobody needs; with
        `propagate`, for a block that stays as it is, the outputs of this same pass become the next
        block's inputs. A tensor like `hidden` as `outputs` takes them instead, and `hidden` stays.

        Returns:
            Name of linear -> statistic of its input; linears that never ran are absent.

        Raises:
            UserError: activations are not finite.
        """
        leaders: dict[str, Statistic] = {}
        first_inputs: list[torch.Tensor] = []
        self.groups = []

        def discover(name: str):
            def hook(_, inputs):
                for group, seen in zip(self.groups, first_inputs, strict=True):
                    if seen is inputs[0]:
                        group.append(name)
                        return
                self.groups.append([name])
                # held, so that no later tensor can be mistaken for it
                first_inputs.append(inputs[0])
                leaders[name] = factory(inputs[0].shape[-1], inputs[0].device)
                self._update(leaders[name], inputs[0])

            return hook

        def observe(name: str, is_last: bool):
            def hook(_, inputs):
                self._update(leaders[name], inputs[0])
                if is_last:
                    raise _Stop

            return hook

        hooks = {name: discover(name) for name in self.linears}
        outputs = self.hidden if propagate else outputs
        weights = self._cast_weights()
        for start in range(0, len(self.hidden), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            output = self._run(self.hidden[chosen], hooks, weights)
            if outputs is not None:
                outputs[chosen] = output
            if first_inputs:
                first_inputs.clear()
                last = next(reversed(leaders), None) if outputs is None else None
                hooks = {name: observe(name, name == last) for name in leaders}
        self.propagated = propagate
        for group in self.groups:
            if not leaders[group[0]].is_finite():
                raise not_finite(f"activations of {group[0]}")
        return {name: leaders[group[0]] for group in self.groups for name in group}

    def _update(self, statistic: Statistic, inputs: torch.Tensor) -> None:
        # statistics stay in float32 whatever the passes use
        with matmul_precision(self.device, "exact"):
            # [sequences, tokens, in], also where a block flattens its tokens before a linear (OPT)
            statistic.update(
                inputs
                if inputs.ndim == 3
                else inputs.view(-1, self.hidden.shape[1], inputs.shape[-1])
            )

    def propagate(self) -> None:
        """Replace `hidden` by the block's outputs, in place, batch by batch."""
        weights = self._cast_weights()
        for batch in self.hidden.split(self.batch_size):
            batch.copy_(self._run(batch, {}, weights))  # to host memory
        self.propagated = True

    def run(
        self, batch: torch.Tensor, weights: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The block's output for other inputs, or with other weights, of which it keeps nothing.

        Args:
            batch: `[sequences, length, width]`: one sequence, or as many as a batch of `walk` has.
            weights: name of linear -> `[out, in]` in place of its own; gradients reach them where
                they are enabled.

        Returns:
            `[sequences, length, width]` on the computing device.
        """
        parameters = {}
        if weights:
            paths = {module: path for path, module in self.module.named_modules()}
            for name, weight in weights.items():
                linear = self.linears[name]
                parameters[f"{paths[linear]}.weight"] = (
                    weight.T if isinstance(linear, Conv1D) else weight
                )
        positional, named = self.arguments[len(batch)]
        if self._casts and not torch.is_grad_enabled():
            named = {
                key: _cast_positions(value) if key == _POSITIONS else value
                for key, value in named.items()
            }
        with matmul_precision(self.device, self.precision):
            output = functional_call(
                self.module, parameters, (batch.to(self.device), *positional), named
            )
        return output[0] if isinstance(output, tuple) else output

    @property
    def _casts(self) -> bool:
        """Whether passes cast ahead what autocast would cast at every batch."""
        return self.precision == "fast" and self.device.type == "cpu"

    def _cast_weights(self) -> dict[str, torch.Tensor]:
        """Name of linear -> bfloat16 copy of its weight as it is now, for one pass over all inputs.

        Only of plain linears: what another kind computes with may be no cast of its weight.
        """
        if not self._casts:
            return {}
        plain = {name: x for name, x in self.linears.items() if type(x) in (nn.Linear, Conv1D)}
        weights = {name: weight_of(x) for name, x in plain.items()}
        return {
            name: w.to(torch.bfloat16) for name, w in weights.items() if w.dtype is torch.float32
        }

    def _run(self, batch: torch.Tensor, hooks: dict[str, Callable], weights) -> torch.Tensor | None:
        handles = [
            self.linears[name].register_forward_pre_hook(hook) for name, hook in hooks.items()
        ]
        try:
            return self.run(batch, weights)
        except _Stop:
            return None
        finally:
            for handle in handles:
                handle.remove()


@torch.no_grad()
def walk(
    model: nn.Module,
    tokens: torch.Tensor,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    precision: str = "exact",
    progress: str | None = None,
) -> Iterator[BlockStep]:
    """Yield the decoder blocks in order; when the caller comes back for the next one, the inputs
    have been propagated through the block as the caller left it.

    Args:
        tokens: int64 `[n, length]`, calibration windows.
        batch_size: sequences a forward pass; by default about 2,000 tokens on a CPU, 1,000 in
            `fast`, and 16,000 on CUDA.
        device: where blocks compute, one at a time; by default where the model is.
        precision: `exact` (the model's dtype) or `fast` (bfloat16 matrix products; norms and the
            residual stream keep the model's dtype).
        progress: label of a progress bar on stderr; None for no bar.

    Raises:
        UserError: bad tokens, or a model without recognisable blocks.
    """
    check_tokens(model, tokens)
    blocks = find_blocks(model)
    home = next(blocks[0].module.parameters()).device
    device = torch.device(device) if device is not None else home
    if batch_size is None:
        in_a_batch = _BATCH_TOKENS.get((device.type, precision), 2048)
        batch_size = max(1, in_a_batch // tokens.shape[1])
    hidden, arguments = _capture(model, blocks, tokens, batch_size)
    for block in tqdm(blocks, desc=progress, unit="block", disable=progress is None):
        block.module.to(device)
        try:
            step = BlockStep(
                block.index,
                block.module,
                block.linears,
                hidden,
                _move(arguments[block.index], device),
                batch_size,
                device,
                precision,
            )
            yield step
            # nothing reads the last block's outputs
            if block.index + 1 < len(blocks) and not step.propagated:
                step.propagate()
        finally:
            block.module.to(home)


def _capture(model, blocks: list[Block], tokens: torch.Tensor, batch_size: int):
    """Inputs of the first block `[n, length, width]`, and for every block its other arguments by
    batch size."""
    _, stack = find_stack(model)
    recorders = [_Recorder(block.module) for block in blocks]
    embedding_device = model.get_input_embeddings().weight.device
    hidden = None
    start = 0
    for i, recorder in enumerate(recorders):
        stack[i] = recorder
    try:
        # arguments for one window
        model.base_model(input_ids=tokens[:1].to(embedding_device), use_cache=False)
        for batch in tokens.split(batch_size):
            # The stack without its head: logits of calibration text would be thrown away.
            model.base_model(input_ids=batch.to(embedding_device), use_cache=False)
            seen = recorders[0].hidden
            if hidden is None:
                # in host memory
                hidden = torch.empty(len(tokens), *seen.shape[1:], dtype=seen.dtype)
            hidden[start : start + len(batch)] = seen
            start += len(batch)
    finally:
        for i, block in enumerate(blocks):
            stack[i] = block.module
    return hidden, [recorder.arguments for recorder in recorders]


def _cast_positions(value: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Rotary cosines and sines in bfloat16: queries and keys then stay in it up to their
    product."""
    return tuple(x.to(torch.bfloat16) if x.dtype is torch.float32 else x for x in value)


def _move(value, device: torch.device):
    """`value` with every tensor in it (tuples and dicts included) on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_move(item, device) for item in value)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    return value

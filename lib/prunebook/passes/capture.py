"""Stand-ins for decoder blocks: what reaches the blocks is recorded once, or handed in.

While a stand-in takes the place of a block in its stack, the model's own code still prepares what
every block is called with (hidden states, masks, positions), but no block computes.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.anatomy import Block, find_stack


class Recorder(nn.Module):
    """Stands in for a block, keeps what it is called with, and returns its input as it is.

    `hidden` is the input of the last call. `arguments` maps a batch size to the other positional
    and named arguments of the first call with so many windows.
    """

    def __init__(self, block: nn.Module):
        super().__init__()
        # Not registered as a submodule: the block must not move with this module.
        object.__setattr__(self, "block", block)
        self.arguments: dict[int, tuple[tuple, dict]] = {}
        self.hidden: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Models read attributes of their blocks, e.g. `attention_type`.
            return getattr(object.__getattribute__(self, "block"), name)

    def forward(self, hidden: torch.Tensor, *positional, **named) -> torch.Tensor:
        self.hidden = hidden
        # Masks and positions depend on the batch size only, so that one entry a size is enough.
        self.arguments.setdefault(len(hidden), (positional, named))
        return hidden


class Source(Recorder):
    """Stands in for a block and returns given states, the next batch of windows at each call,
    whatever enters it."""

    def __init__(self, block: nn.Module, states: torch.Tensor):
        super().__init__(block)
        self._remaining = states

    def forward(self, hidden: torch.Tensor, *_, **__) -> torch.Tensor:
        batch, self._remaining = self._remaining.tensor_split([len(hidden)])
        return batch.to(hidden.device)


@contextlib.contextmanager
def replaced_blocks(stack: nn.ModuleList, stand_ins: list[nn.Module]) -> Iterator[None]:
    """Put the stand-ins in place of the first blocks of a stack while the context is open."""
    blocks = list(stack)[: len(stand_ins)]
    for index, stand_in in enumerate(stand_ins):
        stack[index] = stand_in
    try:
        yield
    finally:
        for index, block in enumerate(blocks):
            stack[index] = block


@contextlib.contextmanager
def starting_at_block(model: PreTrainedModel, index: int, states: torch.Tensor) -> Iterator[None]:
    """Let passes begin at block `index` while the context is open.

    Args:
        model: a model with recognisable blocks.
        index: number of the block, 1 or more; the number of blocks begins behind the last one.
        states: `[n, length, width]`, the states that enter this block for all windows, in the
            order in which the passes take the windows.
    """
    _, stack = find_stack(model)
    skipped = list(stack)[:index]
    # The skipped blocks hand on what enters them; the last of them puts the states in its place.
    stand_ins = [Recorder(block) for block in skipped[:-1]]
    stand_ins.append(Source(skipped[-1], states))
    with replaced_blocks(stack, stand_ins):
        yield


def capture_inputs(
    model: PreTrainedModel, blocks: list[Block], tokens: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, list[dict[int, tuple[tuple, dict]]]]:
    """Run the model without its blocks and record what they are called with.

    Args:
        model: a model with recognisable blocks.
        blocks: all of them, as `find_blocks` returns them.
        tokens: int64 `[n, length]`.
        batch_size: windows a pass.

    Returns:
        The inputs of the first block `[n, length, width]`, in host memory; and for every block its
        other arguments by batch size, which include those of a single window.
    """
    _, stack = find_stack(model)
    recorders = [Recorder(block.module) for block in blocks]
    device = model.get_input_embeddings().weight.device
    hidden = None
    start = 0
    with replaced_blocks(stack, recorders):
        # One window alone: its arguments serve passes over single windows.
        model.base_model(input_ids=tokens[:1].to(device), use_cache=False)
        for batch in tokens.split(batch_size):
            # The stack runs without the head: logits of calibration text would be thrown away.
            model.base_model(input_ids=batch.to(device), use_cache=False)
            states = recorders[0].hidden
            if hidden is None:
                hidden = torch.empty(len(tokens), *states.shape[1:], dtype=states.dtype)
            hidden[start : start + len(batch)] = states
            start += len(batch)
    return hidden, [recorder.arguments for recorder in recorders]

"""Walk the decoder blocks of a causal language model, one after the other.

The inputs of the first block are captured once. At each block, hooks gather statistics of what its
linears read; then the outputs of the block, as the caller left it, become the inputs of the next.
The walk knows no method.

On the computing device at any time are one block and one batch of activations; the captured inputs
of all windows stay in host memory, and the other blocks where the model is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..data.token_check import check_tokens
from ..errors import not_finite
from ..models.anatomy import Block, find_blocks, weight_of
from .capture import capture_inputs
from .hooks import PreHook, forward_pre_hooks
from .precision import matmul_precision
from .statistics import EndOfPassError, InputCollector, Statistic

# Tokens of a forward pass, by device and precision. On a CPU, activations of 1,024 tokens stay in
# its caches; `exact` keeps 2,048, since the size of a batch moves the last digits of statistics,
# and with them masks.
TOKENS_PER_PASS = {
    ("cpu", "exact"): 2048,
    ("cpu", "fast"): 1024,
    ("cuda", "exact"): 16384,
    ("cuda", "fast"): 16384,
}

# The argument in which transformers hands rotary cosines and sines to blocks.
_POSITIONS = "position_embeddings"


@dataclass
class BlockStep(Block):
    """A block while `walk` stands at it, with the inputs that reach it through the pruned blocks
    before it.

    hidden: inputs of the block, `[n, length, width]` in host memory.
    arguments: batch size -> the other positional and named arguments of the block.
    batch_size: windows a pass.
    device: where the block computes.
    precision: `exact` or `fast`.
    groups: linears that read one and the same input, as the last `collect` saw them.
    propagated: whether `hidden` holds the outputs of the block already.
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
        first batch the forward pass ends at the last linear, whose output nobody needs.

        Args:
            factory: `(width, device)` -> a new statistic.
            propagate: let the outputs of this same pass become the inputs of the next block, for a
                block that stays as it is.
            outputs: a tensor like `hidden` that takes the outputs instead; `hidden` then stays.

        Returns:
            Name of linear -> statistic of its input; linears that never ran are absent.

        Raises:
            UserError: activations are not finite.
        """
        # The first batch finds out which linears read the same tensor.
        collector = InputCollector(factory, self._update)
        self.groups = collector.groups
        hooks = collector.discovering_hooks(self.linears)
        if propagate:
            outputs = self.hidden
        weights = self._cast_weights()
        for start in range(0, len(self.hidden), self.batch_size):
            batch = slice(start, start + self.batch_size)
            output = self._run(self.hidden[batch], hooks, weights)
            if outputs is not None:
                outputs[batch] = output
            # Later batches look at one linear of each group, and stop once the last was seen.
            if collector.end_discovery():
                hooks = collector.leading_hooks(stop_at_last=outputs is None)
        self.propagated = propagate
        # All linears of a group get the statistic of its leader.
        statistic_of = {}
        for group in self.groups:
            statistic = collector.statistics[group[0]]
            if not statistic.is_finite():
                raise not_finite(f"activations of {group[0]}")
            statistic_of |= dict.fromkeys(group, statistic)
        return statistic_of

    def _update(self, statistic: Statistic, inputs: torch.Tensor) -> None:
        # Some blocks flatten their tokens before a linear (OPT): back to [sequences, tokens, in].
        if inputs.ndim != 3:
            inputs = inputs.view(-1, self.hidden.shape[1], inputs.shape[-1])
        # Statistics stay in float32 whatever the passes use.
        with matmul_precision(self.device, "exact"):
            statistic.update(inputs)

    def propagate(self) -> None:
        """Replace `hidden` by the block's outputs, in place, batch by batch."""
        weights = self._cast_weights()
        for batch in self.hidden.split(self.batch_size):
            # from the computing device to host memory
            batch.copy_(self._run(batch, {}, weights))
        self.propagated = True

    def run(
        self, batch: torch.Tensor, weights: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Run the block on other inputs or weights. The state of the step does not change.

        Args:
            batch: `[sequences, length, width]`: one sequence, or as many as a batch of `walk` has.
            weights: name of linear -> `[out, in]` in place of its own; gradients reach them where
                they are enabled.

        Returns:
            `[sequences, length, width]` on the computing device.
        """
        positional, named = self.arguments[len(batch)]
        # Autocast would leave the positions in float32, and with them queries and keys.
        if self._casts and not torch.is_grad_enabled() and _POSITIONS in named:
            named = named | {_POSITIONS: _cast_positions(named[_POSITIONS])}
        inputs = (batch.to(self.device), *positional)
        # Other weights are substituted for this call only: the module's own stay in place.
        parameters = self._parameters_of(weights or {})
        with matmul_precision(self.device, self.precision):
            output = functional_call(self.module, parameters, inputs, named)
        # Some architectures return a tuple, in which the hidden states come first.
        if isinstance(output, tuple):
            return output[0]
        return output

    def _parameters_of(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`weights` by the names and in the layouts of the block's own parameters."""
        path_of = {}
        if weights:
            path_of = {module: path for path, module in self.module.named_modules()}
        parameters = {}
        for name, weight in weights.items():
            linear = self.linears[name]
            if isinstance(linear, Conv1D):  # which stores the transpose
                weight = weight.T
            parameters[f"{path_of[linear]}.weight"] = weight
        return parameters

    @property
    def _casts(self) -> bool:
        """Whether passes cast ahead what autocast would cast at every batch."""
        return self.precision == "fast" and self.device.type == "cpu"

    def _cast_weights(self) -> dict[str, torch.Tensor]:
        """Name of linear -> bfloat16 copy of its weight as it is now, for one pass over all inputs.

        Plain linears only: what another kind computes with may be no cast of its weight.
        """
        if not self._casts:
            return {}
        cast = {}
        for name, linear in self.linears.items():
            weight = weight_of(linear)
            if type(linear) in (nn.Linear, Conv1D) and weight.dtype is torch.float32:
                cast[name] = weight.to(torch.bfloat16)
        return cast

    def _run(
        self,
        batch: torch.Tensor,
        hooks: Mapping[str, PreHook],
        weights: Mapping[str, torch.Tensor],
    ) -> torch.Tensor | None:
        """The block's output under hooks on its linears; None where a hook ended the pass."""
        with forward_pre_hooks((self.linears[name], hook) for name, hook in hooks.items()):
            try:
                return self.run(batch, weights)
            except EndOfPassError:
                return None


@torch.no_grad()
def walk(
    model: PreTrainedModel,
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
        model: a causal language model with recognisable blocks.
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
    # Inputs of the first block and arguments of all blocks, captured with the model where it is.
    check_tokens(model, tokens)
    blocks = find_blocks(model)
    home = next(blocks[0].module.parameters()).device
    device = torch.device(device or home)
    batch_size = batch_size or _default_batch_size(device, precision, tokens.shape[1])
    hidden, arguments = capture_inputs(model, blocks, tokens, batch_size)
    settings = {"batch_size": batch_size, "device": device, "precision": precision}
    for block in tqdm(blocks, desc=progress, unit="block", disable=progress is None):
        # Only the block that the walk stands at is on the computing device.
        block.module.to(device)
        try:
            moved = _move(arguments[block.index], device)
            step = BlockStep(**vars(block), hidden=hidden, arguments=moved, **settings)
            yield step
            # The pruned block computes the inputs of the next one, unless a pass of the caller did.
            # Nothing reads the outputs of the last block.
            if block.index + 1 < len(blocks) and not step.propagated:
                step.propagate()
        finally:
            block.module.to(home)


def _default_batch_size(device: torch.device, precision: str, length: int) -> int:
    """Windows of `length` tokens that one pass takes."""
    tokens_per_pass = TOKENS_PER_PASS.get((device.type, precision), 2048)
    return max(1, tokens_per_pass // length)


def _cast_positions(value: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Rotary cosines and sines in bfloat16: queries and keys then stay in it up to their
    product."""
    return tuple(x.to(torch.bfloat16) if x.dtype is torch.float32 else x for x in value)


def _move(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it (tuples and dicts included) on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_move(item, device) for item in value)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    return value

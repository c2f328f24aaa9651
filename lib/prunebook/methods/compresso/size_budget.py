"""The budget of Compresso: the expected size of a model under masks, and masks that meet a size.

Guo et al., Compresso (arXiv 2310.05015); official code microsoft/Moonlit at 348a402,
`Compresso/models/l0_module.py`. With probabilities p that an entry stays, d hidden channels, and
the parameters of a head, of a neuron and of the rest of the blocks at full width, the expected size
is

    sum(p of channels) / d * (head * sum(p of heads) + neuron * sum(p of neurons) + rest)

The official code forms the outer product of the two factors in half precision; the product of their
sums is the same, and is taken here in float32.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn

from ...errors import UserError
from ...models.anatomy import all_sublayers, check_heads
from ...models.sizes import block_parameters
from ...sparsity import hard_concrete
from ...sparsity.structured_masks import check_shape


class SizeBudget:
    """Block parameters of a model whose blocks are alike, as a function of what stays of it.

    groups: axis -> parameters of one key-value head with its query heads, and of one neuron.
    total: parameters of all blocks.
    rest: parameters that belong to no head and no neuron, e.g. norms and biases of outputs.

    Args:
        model: a causal language model.
        sparsity: fraction of the block parameters to remove.

    Raises:
        UserError: blocks that differ, heads that cannot be removed, or a sparsity beyond what can
            be removed while a key-value head and a neuron of every block stay.
    """

    def __init__(self, model: nn.Module, sparsity: float):
        check_shape(model, {})
        blocks = all_sublayers(model)
        first = blocks[0]
        check_heads(first)
        self.sparsity = sparsity
        # Blocks are alike: a size is that of one block times their number.
        self.total = block_parameters(model)
        self.groups = dict(zip(("heads", "neurons"), first.group_sizes(), strict=True))
        in_groups = self.groups["heads"] * first.kv_heads + self.groups["neurons"] * first.neurons
        self.rest = self.total - len(blocks) * in_groups
        self._query_heads = first.heads
        self._width = model.config.hidden_size
        # The least that stays: the rest, and one head and one neuron of every block.
        most = 1 - (self.rest + len(blocks) * sum(self.groups.values())) / self.total
        if sparsity > most:
            raise UserError(
                f"sparsity {sparsity} would take the last head or neuron of a block; use "
                f"{math.floor(most * 1e4) / 1e4} or less"
            )

    def removed(self, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Expected fraction of the block parameters that is removed, `[]`.

        Args:
            kept: axis -> probability that an entry stays, or a bool mask; `heads [L, K]` and
                `neurons [L, m]`, and `hidden [d]` unless all channels stay.
        """
        # Heads and neurons that stay, each with its parameters: the second factor of the size.
        groups = 0.0
        for axis, size in self.groups.items():
            dtype = torch.promote_types(kept[axis].dtype, torch.float32)
            groups = groups + size / self.total * kept[axis].sum(dtype=dtype)
        size = self.rest / self.total + groups
        # The share of the channels that stays: the first factor.
        if "hidden" in kept:
            size = kept["hidden"].to(size.dtype).mean() * size
        return 1 - size

    def choose(self, log_alpha: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Bool masks that meet the sparsity to half a neuron, by one order for the whole model.

        - Hidden channels first: the expected number stays, rounded to a number that divides among
          the query heads, or more where fewer alone would exceed the budget.
        - Heads and neurons of all blocks then go from the lowest `log_alpha` up. A head that is too
          large for the rest of the budget is passed over.
        - Ties, common at the clamp: heads before neurons, then by index within the block, so that
          no block is favoured.
        - The head and the neuron of the highest `log_alpha` stay in every block.

        Args:
            log_alpha: axis -> float tensor, in the shapes of `removed`.
        """
        masks = {}
        hidden_share = 1.0
        if "hidden" in log_alpha:
            count = self._hidden_count(log_alpha["hidden"])
            hidden_share = count / self._width
            masks["hidden"] = hard_concrete.keep(log_alpha["hidden"], count)
        # What the channels leave of the budget, in parameters of full width.
        budget = self.total * (1 - (1 - self.sparsity) / hidden_share)
        # One row of units: heads before neurons, and within each the blocks take turns.
        axes = {axis: log_alpha[axis] for axis in self.groups}
        order = torch.cat([_without_highest(x).T.flatten() for x in axes.values()])
        # The lowest units go until the budget is spent; then each axis takes its shape again.
        kept = self._kept_units(order, axes["heads"].numel(), budget)
        parts = kept.split([x.numel() for x in axes.values()])
        for axis, part in zip(axes, parts, strict=True):
            masks[axis] = part.view(axes[axis].T.shape).T.contiguous()
        return masks

    def _hidden_count(self, log_alpha: torch.Tensor) -> int:
        """How many hidden channels stay; a whole number for each query head."""
        step = self._query_heads
        # With fewer, channels alone would exceed the budget; 1e-9 covers the rounding of floats.
        least = math.ceil((1 - self.sparsity) * self._width / step - 1e-9)
        expected = round(hard_concrete.expected_size(log_alpha).item() / step)
        return step * min(max(expected, least), self._width // step)

    def _kept_units(self, order: torch.Tensor, heads: int, budget: float) -> torch.Tensor:
        """Which heads and neurons stay, bool `[units]`.

        Args:
            order: what units are removed by, lowest first, `[units]`; infinite for those that stay.
            heads: number of units, at the start, that are heads; the others are neurons.
            budget: parameters to remove.
        """
        half_a_neuron = self.groups["neurons"] / 2
        removable = int(order.isfinite().sum())
        removed = []
        for unit in order.sort(stable=True).indices[:removable].tolist():
            size = self.groups["neurons"]
            if unit < heads:
                size = self.groups["heads"]
            # The last unit may exceed the budget by half a neuron, and what is left is no more.
            if size <= budget + half_a_neuron:
                removed.append(unit)
                budget -= size
        kept = torch.ones_like(order, dtype=torch.bool)
        kept[removed] = False
        return kept


def _without_highest(log_alpha: torch.Tensor) -> torch.Tensor:
    """`log_alpha` `[L, n]` with infinity for the highest of every row, which always stays."""
    return log_alpha.masked_fill(hard_concrete.keep(log_alpha, 1), torch.inf)

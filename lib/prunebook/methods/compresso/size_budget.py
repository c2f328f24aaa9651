"""One budget for a whole model: its expected size under masks on key-value heads, neurons and
hidden channels, and the binary masks that meet it.

Guo et al., Compresso (arXiv 2310.05015); microsoft/Moonlit at 348a402,
`Compresso/models/l0_module.py`, which forms the outer product of all masks in half precision. It
factors: every weight of a block has the hidden channels on one side, so that the size is a product
    of two sums, here in float32.
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
    """Block parameters of a model with blocks alike, as a function of what stays of it.

    Args:
        model: a causal language model.
        sparsity: fraction of the block parameters that shall go.

    Raises:
        UserError: blocks that differ, heads that cannot go, or a sparsity beyond what can go while
            a key-value head and a neuron of every block stay.
    """

    def __init__(self, model: nn.Module, sparsity: float):
        check_shape(model, {})
        inside = all_sublayers(model)
        total = block_parameters(model)
        check_heads(inside[0])
        self.sparsity = sparsity
        self.groups = dict(zip(("heads", "neurons"), inside[0].group_sizes(), strict=True))
        of_blocks = (
            self.groups["heads"] * inside[0].kv_heads + self.groups["neurons"] * inside[0].neurons
        )
        self.total = total  # the rest: norms, biases of outputs
        self.rest = total - len(inside) * of_blocks
        self._step = inside[0].heads
        self._width = model.config.hidden_size
        most = 1 - (self.rest + len(inside) * sum(self.groups.values())) / total
        if sparsity > most:
            raise UserError(
                f"sparsity {sparsity} would take the last head or neuron of a block; use "
                f"{math.floor(most * 1e4) / 1e4} or less"
            )

    def removed(self, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Fraction of the block parameters that is gone, `[]`.

        Args:
            kept: axis -> probability that an entry stays, or a bool mask; `heads [L, K]` and
                `neurons [L, m]`, and `hidden [d]` unless all of it stays.
        """
        inside = self.rest / self.total + sum(
            size
            / self.total
            * kept[axis].sum(dtype=torch.promote_types(kept[axis].dtype, torch.float32))
            for axis, size in self.groups.items()
        )
        return 1 - (kept["hidden"].to(inside.dtype).mean() * inside if "hidden" in kept else inside)

    def choose(self, log_alpha: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Bool masks that meet the sparsity to half a neuron, by one order for the whole model.

        Hidden channels come first: as many stay as are expected to, to the nearest number that
        divides among heads, or more where their going alone would exceed the budget. Then heads and
        neurons of all blocks go from the lowest `log_alpha` up; one that is too large for what is
        left of the budget is passed over. Of equal ones, as at the limits, heads go first, then
        what has the lowest index in its block, so that no block is favoured. The highest head and
        neuron of every block stay.

        Args:
            log_alpha: axis -> float, as for `removed`.
        """
        share = 1.0
        masks = {}
        if "hidden" in log_alpha:
            least = math.ceil((1 - self.sparsity) * self._width / self._step - 1e-9)
            expected = round(hard_concrete.expected_size(log_alpha["hidden"]).item() / self._step)
            count = self._step * min(max(expected, least), self._width // self._step)
            share, masks["hidden"] = (
                count / self._width,
                hard_concrete.keep(log_alpha["hidden"], count),
            )
        # to remove, in parameters of full width
        left = self.total * (1 - (1 - self.sparsity) / share)
        axes = {axis: log_alpha[axis] for axis in self.groups}
        order = torch.cat(
            [x.masked_fill(hard_concrete.keep(x, 1), torch.inf).T.flatten() for x in axes.values()]
        )
        heads = axes["heads"].numel()
        gone = []
        for unit in order.sort(stable=True).indices[: int(order.isfinite().sum())].tolist():
            size = self.groups["heads" if unit < heads else "neurons"]
            if size <= left + self.groups["neurons"] / 2:
                gone.append(unit)
                left -= size
        kept = torch.ones_like(order, dtype=torch.bool)
        kept[gone] = False
        for axis, of_axis in zip(axes, kept.split([x.numel() for x in axes.values()]), strict=True):
            masks[axis] = of_axis.view(axes[axis].T.shape).T.contiguous()
        return masks

"""Which parts of several linears go: the cheapest of all together, as far as a budget reaches.

van der Ouderaa et al., The LLM Surgeon (arXiv 2312.17244): one threshold on the costs of all
layers. Rows and columns are counted by the weights that they take along.
"""

from collections.abc import Sequence

import torch

from ...sparsity.patterns import NofM, Pattern, count_removed, keep_mask, keep_masks, refuse_nan
from .removal_costs import group_costs


def cheapest_parts(
    costs: Sequence[torch.Tensor | tuple[torch.Tensor, torch.Tensor]],
    target: Pattern,
    share: float,
    scope: str = "model",
) -> list[torch.Tensor] | list[tuple[torch.Tensor, torch.Tensor]]:
    """What goes of several layers to meet a share of the target.

    Args:
        costs: for each layer those of its entries `[R, C]`, or of its rows `[R]` and columns `[C]`.
        target: pattern of the zeros in the end; n:m for entries alone.
        share: fraction of the target, in (0, 1].
        scope: `model` for one threshold in all layers, `layer` for one in each.

    Returns:
        For each layer bool `[R, C]`, or `[R]` and `[C]`, True where something goes.
    """
    # A layer that does not compete with others is as good as alone.
    if scope == "layer":
        return [cheapest_parts([of_layer], target, share)[0] for of_layer in costs]
    if isinstance(target, NofM):
        return cheapest_n_of_m(costs, target, share)
    sparsity = target.sparsity * share
    # Entries are counted one by one.
    if isinstance(costs[0], torch.Tensor):
        return [~keep for keep in keep_masks(costs, sparsity)]
    # Rows and columns are counted by the weights that they take along.
    size = sum(len(rows) * len(columns) for rows, columns in costs)
    return cheapest_rows_columns(costs, count_removed(size, sparsity))


def cheapest_rows_columns(
    costs: Sequence[tuple[torch.Tensor, torch.Tensor]], budget: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Which rows and columns of many layers go: the cheapest that `budget` weights allow.

    A layer `[R, C]` that loses r rows and c columns loses `r C + c R - r c` weights. Equal costs go
    in the order of the layers, rows first, lowest index first.

    Args:
        costs: for each layer those of its rows `[R]` and of its columns `[C]`, no NaN.
        budget: number of weights that may go.

    Returns:
        For each layer bool `[R]` and `[C]`, True where the row or column goes.

    Raises:
        UserError: NaN costs.
    """
    joined = [torch.cat(pair) for pair in costs]
    losses = []
    for (row_costs, column_costs), layer_costs in zip(costs, joined, strict=True):
        # Inside a layer, rows and columns go in the order of their costs: r and c after each step.
        order = layer_costs.argsort(stable=True)
        rows = (order < len(row_costs)).cumsum(0)
        columns = torch.arange(1, len(order) + 1, device=order.device) - rows
        # r C + c R - r c, and what each step adds to it
        removed = rows * len(column_costs) + columns * len(row_costs) - rows * columns
        loss = torch.empty_like(order)
        loss[order] = removed.diff(prepend=removed.new_zeros(1))
        losses.append(loss)
    all_costs = torch.cat(joined)
    refuse_nan(all_costs)
    # In the order of all costs, as many steps as fit the budget.
    order = all_costs.argsort(stable=True)
    goes = torch.zeros_like(all_costs, dtype=torch.bool)
    goes[order] = torch.cat(losses)[order].cumsum(0) <= budget
    chosen = []
    pieces = goes.split([len(layer_costs) for layer_costs in joined])
    for piece, (row_costs, _) in zip(pieces, costs, strict=True):
        chosen.append((piece[: len(row_costs)], piece[len(row_costs) :]))
    return chosen


def cheapest_n_of_m(
    costs: Sequence[torch.Tensor], pattern: NofM, share: float
) -> list[torch.Tensor]:
    """Which entries go when a share of all groups becomes n:m, the cheapest groups first.

    Args:
        costs: costs of the entries of each layer, `[R, C]`.
        pattern: n:m.
        share: fraction of the groups, in (0, 1].

    Returns:
        For each layer bool `[R, C]`, True where the entry goes.
    """
    groups = [group_costs(layer_costs, pattern.n, pattern.m) for layer_costs in costs]
    chosen = []
    for layer_costs, dense in zip(costs, keep_masks(groups, share), strict=True):
        # A group that stays dense keeps all its entries, another its n dearest.
        dense_entries = dense.repeat_interleave(pattern.m, 1)
        chosen.append(~(dense_entries | keep_mask(layer_costs, pattern)))
    return chosen

"""Which rows and columns of several layers go: the cheapest for the parameters they take along."""

from collections.abc import Sequence

import torch

from ...sparsity.patterns import refuse_nan


def cheapest_rows_columns(
    costs: Sequence[tuple[torch.Tensor, torch.Tensor]], budget: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Which rows and columns of many layers go: the cheapest of all together, as far as `budget`
    weights reach.

    A layer `[R, C]` that loses r rows and c columns loses `r C + c R - r c` weights. Equal costs go
    in the order of the layers, rows first, lowest index first.

    Args:
        costs: for each layer those of its rows `[R]` and of its columns `[C]`, no NaN.

    Returns:
        For each layer bool `[R]` and `[C]`, True where the row or column goes.

    Raises:
        UserError: NaN costs.
    """
    joined = [torch.cat(pair) for pair in costs]
    losses = []
    for (row_costs, column_costs), both in zip(costs, joined, strict=True):
        order = both.argsort(stable=True)
        rows = (order < len(row_costs)).cumsum(0)
        columns = torch.arange(1, len(order) + 1, device=order.device) - rows
        removed = rows * len(column_costs) + columns * len(row_costs) - rows * columns
        losses.append(torch.empty_like(order))
        losses[-1][order] = removed.diff(prepend=removed.new_zeros(1))
    everything = torch.cat(joined)
    refuse_nan(everything)
    order = everything.argsort(stable=True)
    goes = torch.zeros_like(everything, dtype=torch.bool)
    goes[order] = torch.cat(losses)[order].cumsum(0) <= budget
    pieces = zip(goes.split([len(both) for both in joined]), costs, strict=True)
    return [(piece[: len(rows)], piece[len(rows) :]) for piece, (rows, _) in pieces]

"""What the official code of DSnoT does otherwise, and what it takes to do the same.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs (arXiv
2310.08915); official code zyxxmu/DSnoT at 4c029df.

Differences from the official code. Pass the quoted word in `as_released` to get the official
behaviour.

- `skip-mlp`: all linears are refined; the official code leaves out the MLP by default.
- `variance`: variances are pooled over all tokens; the official code averages those of single
  sequences (see `moments`).
- `queues`: a row stops when a queue is empty; the official code goes on with weights whose D is 0
  or has the wrong sign, and the number of weights of the row can drift.
- Here the SparseGPT start uses the Hessian of the inputs; the official code never fills it.
- Without n:m and without `queues`, a weight whose input is always 0 is never swapped.
"""

from collections.abc import Sequence

import torch

from ...errors import UserError

AS_RELEASED = ("variance", "queues", "skip-mlp")


def released_pruning_queues(
    D: torch.Tensor, keep: torch.Tensor, scores: torch.Tensor, cycles: int
) -> torch.Tensor:
    """What goes in the released code, whose queues never run out.

    A queue holds, one after the other:

    1. the kept weights whose D has the other sign than e, lowest score first;
    2. for each kept weight with D = 0, the kept weight with the lowest score of all, again;
    3. the kept weights whose D has the sign of e, highest score first.

    The regrowing queue of the released code goes on, too: behind the pruned weights with the sign
    of e come those with D = 0 and kept ones, so that a row may lose or gain weights.

    Args:
        D: `[out, in]`.
        keep: bool `[out, in]`, True where kept.
        scores: `[out, in]`.
        cycles: T.

    Returns:
        Columns, int64 `[2, out, T]`.
    """
    width = D.shape[1]
    # The kept weights by score, the pruned ones behind them.
    order = scores.masked_fill(~keep, torch.inf).argsort(dim=1, stable=True)
    place = torch.arange(width, device=D.device)
    signs = D.gather(1, order).sign()
    queues = []
    for sign in (signs, -signs):
        # The turn of each weight: ascending, in the middle, descending; pruned ones at the end.
        turn = torch.where(sign > 0, place, torch.where(sign < 0, 2 * width - place, width))
        turn = turn.masked_fill(~keep.gather(1, order), 3 * width)
        queue = turn.argsort(dim=1, stable=True)[:, :cycles]
        # Place 0 is the lowest score of all.
        queues.append(order.gather(1, queue.masked_fill(sign.gather(1, queue) == 0, 0)))
    return torch.stack(queues)


def unrefined_linears(names: Sequence[str], as_released: Sequence[str]) -> set[str]:
    """The linears that keep the first mask: those of the MLP for `skip-mlp`, else none.

    Args:
        names: names of all linears.
        as_released: some of `AS_RELEASED`.

    Raises:
        UserError: `skip-mlp` for names none of which holds 'mlp'.
    """
    if "skip-mlp" not in as_released:
        return set()
    unrefined = {name for name in names if "mlp" in name}
    if not unrefined:
        raise UserError(
            "as_released 'skip-mlp' needs linears whose names hold 'mlp'; leave it out for a "
            f"model with linears such as {names[0]}"
        )
    return unrefined

"""One-shot pruning by a score of weights and input norms: what Wanda and RIA have in common."""

from collections.abc import Callable, Mapping

import torch

from ..blocks import walk, weight_of
from ..criteria.wanda import SquaredNorm
from ..kernels.scores import Factors
from ..patterns import Pattern, prune_lowest


@torch.no_grad()
def prune_by_score(
    model,
    calibration: torch.Tensor,
    factors: Callable[[torch.Tensor, torch.Tensor], Factors],
    targets: Mapping[str, Pattern],
    *,
    prune: Callable[[torch.Tensor, Factors, Pattern], None] = prune_lowest,
    precision: str = "exact",
    progress: str | None = None,
    device=None,
) -> None:
    """Prune all linears of the decoder blocks in place, block by block; survivors keep their values.

    Args:
        calibration: int64 `[n, length]`.
        factors: `(weight [out, in], norm [in]) ->` those of the score, the norms of the inputs that reach the linear
            through the pruned blocks before it; a higher score means keep.
        targets: name of each linear -> its pattern, see `allocation`.
        prune: `(weight, factors, pattern)`, sets what goes to zero, in place.
        precision: of the forward passes, `exact` (the model's dtype) or `fast` (bfloat16 products).
        progress: label of a progress bar, None for none. device: where blocks compute; None for where the model is.
    """
    for block in walk(model, calibration, precision=precision, progress=progress, device=device):
        for name, statistic in block.collect(SquaredNorm).items():
            weight = weight_of(block.linears[name])
            prune(weight, factors(weight, statistic.norm()), targets[name])

"""One-shot pruning by a score of weights and input norms: what Wanda and RIA have in common."""

from collections.abc import Callable, Mapping

import torch

from ..blocks import walk, weight_of
from ..criteria.wanda import SquaredNorm
from ..patterns import Pattern, keep_mask


@torch.no_grad()
def prune_by_score(
    model,
    calibration: torch.Tensor,
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    targets: Mapping[str, Pattern],
    *,
    select: Callable[[torch.Tensor, Pattern], torch.Tensor] = keep_mask,
    precision: str = "exact",
    progress: str | None = None,
    device=None,
) -> None:
    """Prune all linears of the decoder blocks in place, block by block; survivors keep their values.

    Args:
        calibration: int64 `[n, length]`.
        score: `(weight [out, in], norm [in]) -> [out, in]`, the norms of the inputs that reach the linear through
            the pruned blocks before it; a higher score means keep.
        targets: name of each linear -> its pattern, see `allocation`.
        select: `(scores [out, in], pattern) -> mask`, True where kept.
        precision: of the forward passes, `exact` (the model's dtype) or `fast` (bfloat16 products).
        progress: label of a progress bar, None for none. device: where blocks compute; None for where the model is.
    """
    for block in walk(model, calibration, precision=precision, progress=progress, device=device):
        for name, statistic in block.collect(SquaredNorm).items():
            weight = weight_of(block.linears[name])
            weight.masked_fill_(~select(score(weight, statistic.norm()), targets[name]), 0)

"""One-shot pruning by a score of weights and input norms: what Wanda and RIA have in common."""

from collections.abc import Callable, Mapping
from functools import partial

import torch

from ..kernels.scores import Factors
from ..models.anatomy import weight_of
from ..passes.sequential import walk
from ..passes.statistics import InputNorm
from ..sparsity.patterns import Pattern, prune_lowest


@torch.no_grad()
def prune_by_score(
    model,
    calibration: torch.Tensor,
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor | Factors],
    targets: Mapping[str, Pattern],
    *,
    prune: Callable[[torch.Tensor, torch.Tensor | Factors, Pattern], None] = prune_lowest,
    precision: str = "exact",
    progress: str | None = None,
    device=None,
) -> None:
    """Prune all linears of the decoder blocks in place, block by block; survivors keep their
    values.

    Args:
        calibration: int64 `[n, length]`.
        score: `(weight [out, in], norm [in]) ->` scores, floats `[out, in]`, or their factors,
            which spare a GPU to write them; the norms are those of the inputs that reach the linear
            through the pruned blocks before it; a higher score means keep.
        targets: name of each linear -> its pattern, see `allocation`.
        prune: `(weight, score, pattern)`, sets what goes to zero, in place.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
            Norms are summed in float32 in both.
        progress: label of a progress bar, None for none.
        device: where blocks compute; None for where the model is.
    """
    statistic_of = partial(InputNorm, precision=precision)
    for block in walk(model, calibration, precision=precision, progress=progress, device=device):
        for name, statistic in block.collect(statistic_of).items():
            weight = weight_of(block.linears[name])
            prune(weight, score(weight, statistic.norm()), targets[name])

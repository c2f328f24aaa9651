"""The angular distance between what enters and what leaves a run of decoder blocks.

Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers (ICLR 2025, arXiv 2403.17887),
equations 6 and 7. The residual stream before block l is `x^(l)`; the run of n blocks from l on
turns it into `x^(l+n)`. A small angle between the two means that the run can go.
"""

import torch
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from ...errors import UserError
from ...passes.sequential import walk

# Distances from differences of coordinates: those from products lose the digits of small angles.
_DISTANCE = {"compute_mode": "donot_use_mm_for_euclid_dist"}


@torch.no_grad()
def last_token_states(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    *,
    precision: str = "exact",
    progress: str | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """The residual stream at the last token of every window.

    The last token is the only one that has seen the whole window.

    Args:
        model: a causal language model of L blocks.
        tokens: int64 `[n, length]`, whole windows, so that the last token is never padding.
        precision: `exact` (forward passes in the model's dtype) or `fast` (products in bfloat16).
        progress: label of a progress bar; None for no bar.
        device: where blocks compute, one at a time; None for where the model is.

    Returns:
        Float32 `[L + 1, n, width]` in host memory: `x^(0)` to `x^(L)`, the last one before the
        final norm.

    Raises:
        UserError: bad tokens, or states that are not finite.
    """
    states = []
    for block in walk(model, tokens, precision=precision, progress=progress, device=device):
        # x^(l), what enters block l
        states.append(block.hidden[:, -1].to(torch.float32, copy=True))
        block.propagate()
    # x^(L), what leaves the last block
    states.append(block.hidden[:, -1].to(torch.float32, copy=True))
    stacked = torch.stack(states)
    if not stacked.isfinite().all():
        raise UserError(
            "the residual stream holds NaN or infinity; use a wider dtype such as float32"
        )
    return stacked


def angular_distances(states: torch.Tensor) -> torch.Tensor:
    """`d(x^(l), x^(m))`, the angle between two states over pi, as a mean over windows (equation 7).

    Distances are in [0, 1], and 1 means opposite directions. The angle is computed as
    `2 atan2(|u - v|, |u + v|)` of unit vectors u and v, which keeps the digits that arccos loses
    near 0.

    Args:
        states: `[L + 1, n, width]`, as `last_token_states` returns them.

    Returns:
        Symmetric float64 `[L + 1, L + 1]` with a zero diagonal.
    """
    # unit vectors, [n, L + 1, width]
    units = normalize(states.transpose(0, 1).double(), dim=-1)
    # |u - v| and |u + v| of every pair of states, [n, L + 1, L + 1]
    differences = torch.cdist(units, units, **_DISTANCE)
    sums = torch.cdist(units, -units, **_DISTANCE)
    # The mean of the angles, not the angle of the mean cosine.
    return (2 * torch.atan2(differences, sums)).mean(0) / torch.pi


def best_run(distances: torch.Tensor, count: int) -> int:
    """The first block of the run to remove: `l*(n) = argmin_l d(x^(l), x^(l+n))` (equation 6).

    Args:
        distances: `[L + 1, L + 1]`, as `angular_distances` returns them.
        count: number n of blocks in the run, 1 to L.

    Returns:
        The number of the block, from 0; of equal distances the lowest.
    """
    # d(x^(l), x^(l+n)) for l = 0 to L - n stands on the n-th diagonal.
    return int(distances.diagonal(count).argmin())

"""How far runs of blocks turn the residual stream: the angular distance between what enters and
what leaves them.

Gromov et al., The Unreasonable Ineffectiveness of the Deeper Layers (ICLR 2025, arXiv 2403.17887),
equations 6 and 7.
"""

import torch

from ...errors import UserError
from ...passes.sequential import walk


@torch.no_grad()
def last_token_states(
    model,
    tokens: torch.Tensor,
    *,
    precision: str = "exact",
    progress: str | None = None,
    device=None,
) -> torch.Tensor:
    """The residual stream at the last token of every window: before each of the L blocks and,
    before the final norm, after the last; float32 `[L + 1, n, width]` in host memory.

    Args:
        tokens: int64 `[n, length]`, whole windows, so that the last token is never padding.
        precision: of the forward passes.
        progress: label of a progress bar.
        device: where blocks compute.

    Raises:
        UserError: bad tokens, or states that are not finite.
    """
    states = []
    for block in walk(model, tokens, precision=precision, progress=progress, device=device):
        states.append(block.hidden[:, -1].to(torch.float32, copy=True))
        block.propagate()
    states = torch.stack([*states, block.hidden[:, -1].to(torch.float32, copy=True)])
    if not states.isfinite().all():
        raise UserError(
            "the residual stream holds NaN or infinity; use a wider dtype such as float32"
        )
    return states


def angular_distances(states: torch.Tensor) -> torch.Tensor:
    """`d(l, m)` in [0, 1], 1 for opposite directions: the angle between states l and m over pi, a
    mean over windows.

    The angle is `2 atan2(|u - v|, |u + v|)` of unit vectors, which keeps the digits that arccos
    loses near 0.

    Args:
        states: `[L + 1, n, width]`.

    Returns:
        Symmetric float64 `[L + 1, L + 1]` with a zero diagonal.
    """
    # [n, L + 1, width]
    units = torch.nn.functional.normalize(states.transpose(0, 1).double(), dim=-1)
    apart, across = (
        torch.cdist(units, other, compute_mode="donot_use_mm_for_euclid_dist")
        for other in (units, -units)
    )
    return (2 * torch.atan2(apart, across)).mean(0) / torch.pi


def best_run(distances: torch.Tensor, count: int) -> int:
    """The start l of the run of `count` blocks with the smallest `d(l, l + count)` (equation 6),
    the lowest of equals.

    Args:
        distances: `[L + 1, L + 1]`.
        count: blocks, 1 to L.
    """
    return int(distances.diagonal(count).argmin())

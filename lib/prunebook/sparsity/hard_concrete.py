"""The hard-concrete distribution: random masks in [0, 1] that are 0 or 1 with a trained chance.

Louizos et al., Learning Sparse Neural Networks through L0 Regularization (ICLR 2018, arXiv
1712.01312), as Sheared LLaMA uses it (arXiv 2310.06694, section 2.1; princeton-nlp/LLM-Shearing at
b87218b, `llmshearing/models/l0_module.py`). A mask z comes from its `log_alpha` by

    u ~ U(0, 1)
    s = sigmoid((log u - log(1 - u) + log_alpha) / beta)
    z = clip(s (zeta - gamma) + gamma, 0, 1)

`beta` is 2/3 by default, as in that code; the paper prints 0.83. All computations are in float32.
"""

import math

import torch

# The interval (gamma, zeta) that s is stretched to; what leaves [0, 1] is clipped to 0 or 1.
GAMMA = -0.1
ZETA = 1.1
BETA = 2 / 3
# log_alpha is kept within plus and minus this, where gradients do not vanish yet.
LIMIT = math.log(100)
# u is kept this far from 0 and 1, whose logarithms are infinite.
_EDGE = 1e-6


def sample(
    log_alpha: torch.Tensor, generator: torch.Generator | None = None, beta: float = BETA
) -> torch.Tensor:
    """Random masks z of the shape of `log_alpha`; differentiable where 0 < z < 1.

    Args:
        log_alpha: float32, any shape.
        generator: source of u, on the same device; None for torch's own random state.
        beta: temperature of the distribution.
    """
    u = torch.rand(log_alpha.shape, generator=generator, device=log_alpha.device)
    u = u.clamp(_EDGE, 1 - _EDGE)
    # s: the sample of the concrete distribution, in (0, 1)
    s = torch.sigmoid((u.log() - (-u).log1p() + log_alpha) / beta)
    # z: s stretched beyond [0, 1] and clipped, so that it is 0 or 1 with a chance above nothing
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def probability_of_zero(log_alpha: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """P(z = 0), of the shape of `log_alpha`."""
    return torch.sigmoid(beta * math.log(-GAMMA / ZETA) - log_alpha)


def probability_of_one(log_alpha: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """P(z = 1), of the shape of `log_alpha`."""
    return torch.sigmoid(log_alpha - beta * math.log((1 - GAMMA) / (ZETA - 1)))


def expected_size(log_alpha: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """Expected number of masks that are not zero: `[..., n]` -> `[...]`."""
    return (1 - probability_of_zero(log_alpha, beta)).sum(-1)


def without_noise(log_alpha: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """The masks that the official code evaluates with: `sigmoid(0.8 log_alpha / beta)`.

    With `log_alpha` within its limit they are at most 0.996.
    """
    return torch.sigmoid(0.8 * log_alpha / beta)


def keep(log_alpha: torch.Tensor, count: int) -> torch.Tensor:
    """Binary masks with exactly `count` ones in each row, where `log_alpha` is highest.

    Among equal values the lowest index is removed first.

    Args:
        log_alpha: `[..., n]`.
        count: number of ones in each row.

    Returns:
        bool `[..., n]`, True where kept.
    """
    ascending = log_alpha.sort(dim=-1, stable=True).indices
    highest = ascending[..., ascending.shape[-1] - count :]
    kept = torch.zeros(log_alpha.shape, dtype=torch.bool, device=log_alpha.device)
    return kept.scatter_(-1, highest, True)

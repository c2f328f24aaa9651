"""BESA's candidate rates, and the rates that a mixture of them can reach.

Xu et al., BESA: Pruning Large Language Models with Blockwise Parameter-Efficient Sparsity
Allocation (arXiv 2402.16880), section 3; official code OpenGVLab/LLMPrune-BESA at 4158d77
(`models/sparse_layers.py`).
"""

import math

import numpy as np
import torch


def candidate_rates() -> torch.Tensor:
    """`p`, descending: 1.00, 0.99, ..., 0.01, 0; float32 `[101]`."""
    return torch.arange(100, -1, -1) / 100


def reachable(candidates: torch.Tensor) -> tuple[float, float]:
    """The open interval of rates that `beta = softmax(sigmoid(theta))` can make (our derivation).

    Args:
        candidates: `[D]`, descending.
    """
    p = candidates.double().numpy()
    # The lowest rate is 1 minus the highest one of the candidates 1 - p.
    return 1 - _highest_mixture(1 - p[::-1]), _highest_mixture(p)


def _highest_mixture(candidates: np.ndarray) -> float:
    """The least upper bound of a mixture of descending candidates, whatever theta is.

    With a sigmoid no coefficient is e times another or more. The mixture is highest where the m
    highest candidates have e times the coefficient of the others, for the best m.
    """
    highest_sums = np.concatenate([[0], candidates.cumsum()])
    m = np.arange(len(candidates) + 1)
    mixtures = candidates.sum() + (math.e - 1) * highest_sums
    return float((mixtures / (len(candidates) + (math.e - 1) * m)).max())

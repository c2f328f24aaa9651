"""BESA's pruning probability as it is defined, before it is rearranged to be fast."""

import torch

FIVE = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])


def explicit_probability(beta, ranks, candidates):
    """`P [R, C]` by its definition, in the dtype of beta."""
    width = ranks.shape[1]
    total = torch.zeros(ranks.shape, dtype=beta.dtype)
    for d, p in enumerate(candidates.double().tolist()):
        total = total + beta[:, d : d + 1] * (ranks < int(width * p + 1e-4))
    return total
